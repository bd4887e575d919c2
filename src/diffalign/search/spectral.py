r"""Spectral evolution search: cross-entropy search over the noise's lowest wavelet band.

    z = B x_T (Haar means of 2^L × 2^L blocks),   z ~ N(m, s²),   (m, s) ← mean and std of the elites

Candidates are scored on cheap previews of few steps; the noise of the best previews is then sampled with
all steps. What lies outside the band is drawn anew for each candidate.

Symbols:    B = band, m = mean, s = std
References: Spectral Evolution Search (2026), https://arxiv.org/abs/2602.03208
            Rubinstein (1999), cross-entropy method, https://doi.org/10.1023/A:1010091220143
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.rewards import RewardFunction, score
from diffalign.rollout import Environment
from diffalign.search.best_of_n import SearchResult, merge

LEVEL = 2  # of the Haar transform: blocks of 4 × 4


def spectral_evolution(
    environment: Environment,
    latent_shape: Sequence[int],
    prompt: str,
    reward: RewardFunction,
    n: int,
    *,
    preview: Environment | None = None,
    keep: int = 1,
    seed: int,
    batch_size: int,
    population: int = 30,
    elites: float = 0.2,
    level: int = LEVEL,
    on_batch: Callable[[SearchResult], None] | None = None,
) -> SearchResult:
    """Pictures of the noise of the `keep` best of n − keep previews.

    Arguments:
        environment, latent_shape, batch_size, on_batch: as of `best_of_n`.
        n: reward queries in all, of previews and of the `keep` pictures.
        preview: a sampler of fewer steps; `environment` itself by default.
        population: candidates between two updates of the distribution.
        elites: share of them that the update is made from.
        level: L, of the Haar transform.

    Returns:
        The pictures, best first; `rewards` are those of all previews, then of the pictures, to which
        `indices` point.

    Raises:
        RewardError: if the reward fails.
        ValueError: if a number makes no sense.
    """
    if not 1 <= keep <= n // 2 or batch_size < 1 or population < 2 or not 0 < elites <= 1:
        raise ValueError(f"need 1 ≤ keep ≤ n / 2, population ≥ 2 and 0 < elites ≤ 1, not {keep}, {n}")
    if not divides(latent_shape, level):
        raise ValueError(f"latents of {tuple(latent_shape[-2:])} have no band at level {level}; lower it")
    cheap = preview or environment
    mean = low_band(torch.zeros(1, *latent_shape), level)
    std = torch.ones_like(mean)
    best: SearchResult | None = None
    for start in range(0, n - keep, population):
        indices = tuple(range(start, min(start + population, n - keep)))
        epsilon = seeded_noise(latent_shape, seed, "search", indices)
        z = low_band(epsilon, level)
        x_T = epsilon + spread(mean + (std - 1) * z, level)
        images = torch.cat([cheap(part, prompt) for part in x_T.split(batch_size)])
        rewards = score(reward, images, (prompt,) * len(images))
        best = merge(best, SearchResult(x_T, images, rewards, indices), keep)
        count = min(len(rewards), max(2, round(elites * len(rewards))))
        chosen = low_band(x_T[rewards.topk(count).indices], level)
        mean, std = chosen.mean(0, keepdim=True), chosen.std(0, keepdim=True, correction=0).clamp_min(0.1)
        if on_batch is not None:
            on_batch(best)
    assert best is not None  # as n > keep
    images = torch.cat([environment(part, prompt) for part in best.x_T.split(batch_size)])
    rewards = score(reward, images, (prompt,) * keep)
    order = rewards.argsort(descending=True, stable=True)
    seen = torch.cat([best.rewards, rewards])
    return SearchResult(
        best.x_T[order], images[order], seen, tuple(len(best.rewards) + i for i in order.tolist())
    )


def divides(latent_shape: Sequence[int], level: int = LEVEL) -> bool:
    """Whether latents of this shape have a lowest band."""
    return all(size % 2**level == 0 for size in latent_shape[-2:])


def low_band(x: Tensor, level: int) -> Tensor:
    """Haar's lowest band `(B, …, H / 2^L, W / 2^L)` of latents `(B, …, H, W)`, orthonormal."""
    side = 2**level
    return side * F.avg_pool2d(x.flatten(1, -3), side).unflatten(1, x.shape[1:-2])


def spread(z: Tensor, level: int) -> Tensor:
    """Latents with the lowest band `z` and nothing else."""
    side = 2**level
    return z.repeat_interleave(side, -2).repeat_interleave(side, -1) / side
