"""The searches by name."""

from collections.abc import Mapping, Sequence

from diffalign.diffusion import Sampler
from diffalign.diffusion.estimates import Estimates
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.halving import Halving
from diffalign.learners.previews import PreviewSearch
from diffalign.learners.search import SearchLearner
from diffalign.learners.spectral import Spectral
from diffalign.learners.spectral_fresh import SpectralFresh
from diffalign.learners.zero_order import ZeroOrder
from diffalign.settings.fields import ConfigError
from diffalign.settings.search import SearchConfig

#: By the name of `SearchConfig.algorithm`.
SEARCHES: Mapping[str, type[SearchLearner]] = {
    "best-of-n": BestOfN,
    "halving": Halving,
    "zero-order": ZeroOrder,
    "spectral": Spectral,
    "spectral-fresh": SpectralFresh,
}


def build(
    sampler: Sampler, prompts: Sequence[str], config: SearchConfig, metadata: Mapping[str, str]
) -> SearchLearner:
    """The search that `config.algorithm` names.

    Raises:
        ConfigError: if it would draw all previews again, and so choose none.
        PipelineError: if it would look at estimates of a pipeline that has none.
    """
    search = SEARCHES[config.algorithm](sampler, prompts, config, metadata)
    if isinstance(search, Halving):
        search.estimates = Estimates(sampler)
    if isinstance(search, PreviewSearch) and config.preview_steps < sampler.num_steps:
        search.preview = sampler.with_steps(config.preview_steps)
        if search.redrawn >= search.searched:
            raise ConfigError(
                f"{config.algorithm} would draw all its {search.searched} previews of {config.queries} "
                "queries again, and choose none; raise queries, or keep fewer"
            )
    return search
