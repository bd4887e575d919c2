r"""How much the initial noise decides: variance components of rewards over prompts and seeds, and best-of-N.

Of rewards r_ij, prompt i, seed j (the same noise for every prompt), in the two-way random-effects model
r_ij = μ + p_i + s_j + e_ij, by the method of moments:

    σ²_e = MS_e,    σ²_p = (MS_p − MS_e)/S,    σ²_s = (MS_s − MS_e)/P,    none below 0

The expected best of N of the S seeds of a prompt, without bias, from its ordered rewards r_(1) ≤ … ≤ r_(S):

    E[max of N] = Σ_j C(j − 1, N − 1)/C(S, N) · r_(j)

Symbols:    P = prompts, S = seeds, MS = mean squares of prompts, seeds and the rest
References: Searle, Casella and McCulloch (1992), "Variance components", chapter 4
            Chen et al. (2021), https://arxiv.org/abs/2107.03374 (the same sum over subsets, for pass@k)
"""

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor


@dataclass(frozen=True)
class Shares:
    """Shares of the variance of rewards, which add up to 1; all 0 if there is none.

    Attributes:
        prompt: of the prompt, whatever the noise.
        noise: of the noise, whatever the prompt.
        both: of what noise suits which prompt.
    """

    prompt: float
    noise: float
    both: float

    @property
    def seeds(self) -> float:
        """Of all that another seed changes."""
        return self.noise + self.both


def variance_shares(rewards: Tensor) -> Shares:
    """The shares of `rewards` with shape `(P, S)`, P prompts and S seeds.

    Raises:
        ValueError: if there are less than two prompts or two seeds, or a reward is not finite.
    """
    if rewards.ndim != 2 or min(rewards.shape) < 2 or not rewards.isfinite().all():
        raise ValueError(f"shares need finite rewards (P, S), P and S at least 2, not {tuple(rewards.shape)}")
    r = rewards.double()
    P, S = r.shape
    of_prompts, of_seeds, mean = r.mean(1, keepdim=True), r.mean(0, keepdim=True), r.mean()
    rest = float((r - of_prompts - of_seeds + mean).square().sum()) / ((P - 1) * (S - 1))
    prompt = max(0.0, (float(S * (of_prompts - mean).square().sum()) / (P - 1) - rest) / S)
    noise = max(0.0, (float(P * (of_seeds - mean).square().sum()) / (S - 1) - rest) / P)
    total = prompt + noise + rest
    return Shares(prompt / total, noise / total, rest / total) if total > 0 else Shares(0.0, 0.0, 0.0)


def expected_best(rewards: Tensor, n: int) -> Tensor:
    """The expected best of `n` of the S rewards of each prompt, `(P, S)` → `(P,)`, float64.

    Raises:
        ValueError: if `n` is not in 1..S.
    """
    S = rewards.shape[1]
    if not 1 <= n <= S:
        raise ValueError(f"the best of {n} of {S}")
    weights = torch.tensor([comb(j, n - 1) / comb(S, n) for j in range(S)], dtype=torch.float64)
    return rewards.double().sort(1).values @ weights
