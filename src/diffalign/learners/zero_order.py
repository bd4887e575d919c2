r"""Zero-order search: try noise around the best so far.

    y = (x* + λ ε) / √(1 + λ²),   ε ~ N(0, I),   x* ← the best of x* and its neighbours y

The neighbours are typical noise again: if x* is N(0, I), so is y.

Symbols:    x* = pivot, λ = radius
References: Ma et al. (2025), section 3 (zero-order search), https://arxiv.org/abs/2501.09732
"""

from torch import Tensor

from diffalign.learners.contract import Request
from diffalign.learners.search import SearchLearner


class ZeroOrder(SearchLearner):
    """The first `neighbours` are drawn from N(0, I), the rest around the best so far, as many at a time."""

    moves_after = "neighbours"

    def ask(self) -> Request:
        return self.next_samples(self.config.neighbours)

    def candidates(self, epsilon: Tensor) -> Tensor:
        if not self.queries:
            return epsilon
        radius = self.config.radius
        norm: float = (1 + radius**2) ** 0.5
        return (self.best.x_T[:1] + radius * epsilon) / norm
