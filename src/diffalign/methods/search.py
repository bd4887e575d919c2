"""Search: what a user would do instead of learning; results carry it at equal cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.search import SearchLearner
from diffalign.learners.spectral import Spectral
from diffalign.learners.zero_order import ZeroOrder
from diffalign.methods.provenance import provenance
from diffalign.methods.run import Run, prepare
from diffalign.rewards import RewardFunction
from diffalign.settings.search import SearchConfig


def _spectral(
    sampler: Sampler, prompts: Sequence[str], config: SearchConfig, metadata: dict[str, str]
) -> Spectral:
    preview = Sampler(
        sampler.pipeline,
        num_steps=min(config.preview_steps, sampler.num_steps),
        guidance_scale=sampler.guidance_scale,
        batch_size=sampler.batch_size,
    )
    return Spectral(sampler, prompts, config, metadata, preview)


#: By the name of `SearchConfig.algorithm`.
SEARCHES: dict[str, Callable[..., SearchLearner]] = {
    "best-of-n": BestOfN,
    "zero-order": ZeroOrder,
    "spectral": _spectral,
}


def build(sampler: Sampler, prompts: Sequence[str], config: SearchConfig, reward: str) -> SearchLearner:
    """A search.

    Raises:
        ConfigError: if there is not one prompt, or the search does not know the model's latents.
    """
    metadata = provenance(sampler, reward) | {"prompt": prompts[0], "seed": str(config.seed)}
    return SEARCHES[config.algorithm](sampler, prompts, config, metadata)


def search(pipeline: Any, prompt: str, reward: RewardFunction | str, **settings: Any) -> Run:
    """Prepares a search for the best pictures of a prompt; the pipeline stays as it is.

    Arguments:
        settings: as of `diffalign.methods.run.prepare` (num_steps …), and of `SearchConfig`.

    Returns:
        An iterable of `Round`; `.run()` goes to the end and returns the `SearchResult`.
    """
    return prepare("search", pipeline, prompt, reward, **settings)
