r"""Best-of-N: draw N pictures from the frozen model, keep those that the reward likes best.

    x_T^i ~ N(0, I),  r_i = r(x_0(x_T^i), c),  keep the indices of the greatest r_i

Symbols:    x_T = initial noise, r = rewards, c = prompt
References: Ma et al. (2025), section 3 (random search), https://arxiv.org/abs/2501.09732
"""

from diffalign.learners.contract import Request
from diffalign.learners.search import SearchLearner


class BestOfN(SearchLearner):
    """Only a batch and the kept pictures are ever in memory."""

    def ask(self) -> Request:
        return self.next_samples(self.environment.batch_size)
