r"""Direct preference optimisation of decisions.

    L = −E[log σ(β ((log p_θ − log p_ref)(winner) − (log p_θ − log p_ref)(loser)))]

D3PO's published code clamps the ratios p_θ / p_ref to 1 ± c first; a pair beyond teaches nothing more.

Symbols:    β = beta, c = clamp
References: Rafailov et al. (NeurIPS 2023), eq. 7, https://arxiv.org/abs/2305.18290
            as an objective over denoising steps, Yang et al. (CVPR 2024), D3PO, eq. 13,
            https://arxiv.org/abs/2311.13231
"""

import math

import torch.nn.functional as F
from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics, check_shapes, diagnose


def dpo_loss(
    log_prob: Tensor, reference: Tensor, *, beta: float, clamp: float = 0.0
) -> tuple[Tensor, Diagnostics]:
    """The loss, a scalar, of P pairs with K decisions each.

    Arguments:
        log_prob: of decisions, with shape `(2P, K)`; first the winners', then the losers'.
        reference: the same under the reference policy.
        beta: β.
        clamp: c; 0 does not clamp.

    Raises:
        ValueError: if the shapes differ or there is no whole number of pairs.
    """
    check_shapes(log_prob, reference, log_prob)
    if len(log_prob) % 2:
        raise ValueError(f"{len(log_prob)} samples are no pairs of a winner and a loser")
    log_ratio = log_prob - reference
    ratio = log_ratio.exp().clamp(1 - clamp, 1 + clamp).log() if clamp else log_ratio
    winner, loser = ratio.chunk(2)
    return -F.logsigmoid(beta * (winner - loser)).mean(), diagnose(log_ratio, clamp or math.inf)
