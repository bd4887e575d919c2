"""Baselines that need no network."""

import math

import torch
from torch import Tensor

#: Of the greatest size of rewards: those that differ by less are equal but for rounding (float32: 1.2e-7).
TOLERANCE = 1e-6


def are_equal(reward: Tensor) -> bool:
    """Whether rewards `(B,)` differ by rounding alone."""
    return bool(reward.max() - reward.min() <= TOLERANCE * reward.abs().max())


def deviations(reward: Tensor, of: Tensor | None = None) -> Tensor:
    """r − mean, float64 `(B,)`: exactly zero where all rewards are equal.

    Arguments:
        of: the rewards whose mean it is, `(N,)`; `reward` by default.
    """
    of = (reward if of is None else of).double()
    return torch.zeros_like(reward).double() if are_equal(of) else reward.double() - of.mean()


def leave_one_out(reward: Tensor) -> Tensor:
    """A_i = r_i − mean of the other rewards, from rewards `(B,)` to `(B,)`; 0 if B = 1.

    References: Kool et al. (2019), https://openreview.net/forum?id=r1lgTGL5DE
    """
    size = len(reward)
    return (deviations(reward) * size / max(1, size - 1)).to(reward.dtype)  # the same, and stable


def standardise(reward: Tensor, epsilon: float = 1e-6) -> Tensor:
    """A = (r − mean) / std, with shape `(B,)`; zero where all rewards are equal."""
    scale = reward.double().std(correction=0) + epsilon
    return (deviations(reward) / scale).to(reward.dtype)


def rank(reward: Tensor) -> Tensor:
    """Utilities of natural evolution strategies, from rewards `(B,)` to `(B,)`: only their order matters.

    u_i = max(0, ln(B/2 + 1) − ln(rank_i)), scaled to sum to 1, minus 1/B; the best rank is 1. Equal
    rewards get the mean of their utilities. All are multiplied by B, for the scale of `standardise`.

    References: Wierstra et al. (JMLR 2014), section 3.1, https://jmlr.org/papers/v15/wierstra14a.html
    """
    size = len(reward)
    if are_equal(reward):
        return torch.zeros_like(reward)
    ranks = torch.arange(1, size + 1, dtype=torch.float32, device=reward.device)
    by_rank = (math.log(size / 2 + 1) - ranks.log()).clamp_min(0)
    by_rank = size * by_rank / by_rank.sum() - 1
    order = reward.argsort(descending=True, stable=True)
    utility = torch.empty_like(by_rank)
    utility[order] = by_rank
    values, group = reward.unique(return_inverse=True)
    sums = by_rank.new_zeros(len(values)).index_add_(0, group, utility)
    means: Tensor = sums / group.bincount()
    return means[group]
