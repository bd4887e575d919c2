r"""Zero-order search: look around the best noise so far.

    y = (x* + λ ε) / √(1 + λ²),   ε ~ N(0, I),   x* ← the best of x* and its neighbours y

The neighbours are typical noise again: if x* is N(0, I), so is y.

Symbols:    x* = pivot, λ = radius
References: Ma et al. (2025), section 3 (zero-order search), https://arxiv.org/abs/2501.09732
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from diffalign.diffusion.sampler import seeded_noise
from diffalign.rewards import RewardFunction, score
from diffalign.rollout import Environment
from diffalign.search.best_of_n import SearchResult, merge


def zero_order(
    environment: Environment,
    latent_shape: Sequence[int],
    prompt: str,
    reward: RewardFunction,
    n: int,
    *,
    keep: int = 1,
    seed: int,
    batch_size: int,
    neighbours: int = 15,
    radius: float = 0.5,
    on_batch: Callable[[SearchResult], None] | None = None,
) -> SearchResult:
    """The `keep` best of `n` pictures: the first `neighbours` are drawn from N(0, I), the rest around the
    best so far, `neighbours` at a time.

    Arguments:
        environment, latent_shape, batch_size, on_batch: as of `best_of_n`.
        neighbours: candidates between two moves of the pivot.
        radius: λ.

    Raises:
        RewardError: if the reward fails.
        ValueError: if a number makes no sense.
    """
    if not 1 <= keep <= n or batch_size < 1 or neighbours < 1 or radius <= 0:
        raise ValueError(f"need 1 ≤ keep ≤ n, neighbours ≥ 1 and a positive radius, not {keep}, {n}")
    best: SearchResult | None = None
    for start in range(0, n, neighbours):
        indices = tuple(range(start, min(start + neighbours, n)))
        x_T = seeded_noise(latent_shape, seed, "search", indices)
        if best is not None:
            x_T = (best.x_T[:1] + radius * x_T) / (1 + radius**2) ** 0.5
        parts = [environment(part, prompt) for part in x_T.split(batch_size)]
        images = torch.cat(parts)
        rewards = score(reward, images, (prompt,) * len(images))
        best = merge(best, SearchResult(x_T, images, rewards, indices), keep)
        if on_batch is not None:
            on_batch(best)
    assert best is not None  # as n ≥ 1
    return best
