r"""Best-of-N: draw N pictures from the frozen model, keep those that the reward likes best.

    x_T^i ~ N(0, I),  r_i = r(x_0(x_T^i), c),  keep the indices of the greatest r_i

Its reward is measured on the very pictures that the reward selected, and so is too good: what the
judge says of them is the honest figure.

Symbols:    x_T = initial noise, r = rewards, c = prompt
References: Ma et al. (2025), section 3 (random search), https://arxiv.org/abs/2501.09732
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Environment, collect


@dataclass(frozen=True)
class SearchResult:
    """The best of the pictures drawn so far, best first; of equal ones the earlier first.

    Attributes:
        x_T: initial noise with shape `(keep, *latent)`.
        images: pictures with shape `(keep, 3, H, W)`, float32 in [0, 1].
        rewards: of every picture drawn, with shape `(n,)`, in the order of their indices.
        indices: which of the n pictures were kept.
    """

    x_T: Tensor
    images: Tensor
    rewards: Tensor
    indices: tuple[int, ...]

    def kept_rewards(self) -> Tensor:
        """The rewards of the kept pictures, with shape `(keep,)`."""
        return self.rewards[list(self.indices)]

    def narrowed(self, n: int, keep: int) -> SearchResult:
        """What the search would have found with fewer draws: the `keep` best of the first `n`.

        The m best of Q + m draws, m ≤ keep, are always within the `keep` best of Q + keep.

        Raises:
            ValueError: if too few of those are among the kept.
        """
        places = [place for place, index in enumerate(self.indices) if index < n][:keep]
        best = self.rewards[:n].argsort(descending=True, stable=True)[:keep].tolist()
        if not 1 <= keep <= n or [self.indices[place] for place in places] != best:
            raise ValueError(f"the {keep} best of {n} are not all among the {len(self.indices)} kept")
        return SearchResult(self.x_T[places], self.images[places], self.rewards[:n], tuple(best))


def equal_cost(reward_queries: int, pictures: int) -> int:
    """N that costs as much as a method that spent `reward_queries` before it made `pictures`.

    Each query was a picture too, so a searcher could have drawn them all and kept the best.
    """
    return reward_queries + pictures


def best_of_n(
    environment: Environment,
    latent_shape: Sequence[int],
    prompt: str,
    reward: RewardFunction,
    n: int,
    *,
    keep: int = 1,
    seed: int,
    batch_size: int,
    on_batch: Callable[[SearchResult], None] | None = None,
) -> SearchResult:
    """The `keep` best of `n` pictures. Only a batch and the kept ones are ever in memory.

    Arguments:
        environment: `(x_T, prompt) → images`, such as a `Sampler`.
        latent_shape: of one latent, `(C, H, W)`.
        batch_size: pictures made and scored at a time; it changes nothing but time and memory.
        on_batch: called with the result so far after each batch, for a progress bar.

    Raises:
        RewardError: if the reward fails.
        ValueError: if `keep`, `n` or `batch_size` makes no sense.
    """
    if not 1 <= keep <= n or batch_size < 1:
        raise ValueError(f"need 1 ≤ keep ≤ n and a positive batch size, not keep {keep}, n {n}, {batch_size}")
    standard = NoiseDistribution.standard(latent_shape)
    best: SearchResult | None = None
    batches = (
        collect(standard, environment, prompt, range(n)[i : i + batch_size], seed=seed, stream="search")
        for i in range(0, n, batch_size)
    )
    for batch, rewards in overlapped(batches, lambda part: score(reward, part.images, part.prompts)):
        best = merge(best, SearchResult(batch.x_T, batch.images, rewards, batch.indices), keep)
        if on_batch is not None:
            on_batch(best)
    assert best is not None  # as n ≥ 1
    return best


def merge(best: SearchResult | None, drawn: SearchResult, keep: int) -> SearchResult:
    """The best of `best` and the batch `drawn`, whose rewards are those of that batch alone."""
    if best is None:
        x_T, images, indices, rewards = drawn.x_T, drawn.images, drawn.indices, drawn.rewards
    else:
        x_T, images = torch.cat([best.x_T, drawn.x_T]), torch.cat([best.images, drawn.images])
        indices, rewards = best.indices + drawn.indices, torch.cat([best.rewards, drawn.rewards])
    candidates = rewards[list(indices)]
    # stable: the kept come before the batch, and each is in order, so that ties go to the lower index
    order = candidates.argsort(descending=True, stable=True)[:keep]
    return SearchResult(x_T[order], images[order], rewards, tuple(indices[i] for i in order.tolist()))
