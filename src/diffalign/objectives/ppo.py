r"""Proximal policy optimisation; FIND's ratio clipping (RCA).

    L = −E[min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)],   ρ = exp(log π − log π_old)

Symbols:    ρ = ratio, A = advantage, ε = clip_range
References: Schulman et al. (2017), eq. 7, https://arxiv.org/abs/1707.06347
            Chen et al. (ACM MM 2024), eqs. 11–13, https://arxiv.org/abs/2407.19453
"""

import torch
from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics, check_shapes, diagnose


def ppo_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, *, clip_range: float
) -> tuple[Tensor, Diagnostics]:
    """The loss, a scalar, of `log_prob`, `old_log_prob` and `advantage`, all with shape `(B, K)`.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shapes(log_prob, old_log_prob, advantage)
    log_ratio = log_prob - old_log_prob
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    return -torch.min(ratio * advantage, clipped * advantage).mean(), diagnose(log_ratio, clip_range)
