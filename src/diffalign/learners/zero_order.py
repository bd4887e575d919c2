r"""Zero-order search: try noise around the best so far.

    y = (x* + λ ε) / √(1 + λ²),   ε ~ N(0, I),   x* ← the best of x* and its neighbours y

The neighbours are typical noise again: if x* is N(0, I), so is y.

Symbols:    x* = pivot, λ = radius
References: Ma et al. (2025), section 3 (zero-order search), https://arxiv.org/abs/2501.09732
"""

from collections.abc import Iterator

from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.contract import Request
from diffalign.learners.search import STREAM, SearchLearner
from diffalign.rollout import Rollout, sample_noise


class ZeroOrder(SearchLearner):
    """The first `neighbours` are drawn from N(0, I), the rest around the best so far, as many at a time."""

    def ask(self) -> Request:
        return self.next_samples(self.config.neighbours)

    def sample(self, request: Request) -> Iterator[Rollout]:
        radius = self.config.radius
        x_T = seeded_noise(self.environment.latent_shape, self.config.seed, STREAM, request.groups)
        if self.queries:
            x_T = (self.best.x_T[:1] + radius * x_T) / (1 + radius**2) ** 0.5
        yield sample_noise(self.environment, self.prompts[0], x_T, request.groups)
