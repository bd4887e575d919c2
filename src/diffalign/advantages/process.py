r"""What places are worth to prompts: a Gaussian process over prompts, one for each place.

    r = b_c + q_k(c) + noise,    q_k ~ GP(0, τ² κ)

Symbols:    c = prompt, k = place, b = a prompt's mean, q = advantage, τ² = the signal's variance, κ = kernel
References: Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, sections 2.2, 2.7
"""

from __future__ import annotations

import torch
from torch import Tensor


def posterior(gram: Tensor, sums: Tensor, counts: Tensor, noise: float) -> Tensor:
    """The process's coefficients α with shape `(P, K)`, so that q(c) = κ(c, ·) α.

    Arguments:
        gram: κ of the prompts, `(P, P)`.
        sums: of rewards, in standard deviations, `(P, K)`.
        counts: of rewards, `(P, K)`.
        noise: share of a reward's variance that place and prompt do not decide.
    """
    size, known = len(sums), counts > 0
    mean = sums / counts.clamp_min(1)
    inverses = [torch.cholesky_inverse(_factor((1 - noise) * gram, own, noise)) for own in counts.T]
    # b by generalised least squares, of the cells that were tried
    precision, target = torch.diag((~known.any(1)).to(sums.dtype)), sums.new_zeros(size)
    for k, inverse in enumerate(inverses):
        masked = inverse * known[:, k] * known[:, k, None]
        precision, target = precision + masked, target + masked @ mean[:, k]
    means = torch.linalg.solve(precision, target)
    rest = torch.where(known, mean - means[:, None], 0.0)
    return (1 - noise) * torch.stack([inverse @ rest[:, k] for k, inverse in enumerate(inverses)], 1)


def _factor(signal: Tensor, counts: Tensor, noise: float) -> Tensor:
    """Cholesky's factor of the covariance of one place's means, `(P, P)`; of prompts that did not try it
    that of the identity."""
    tried = (counts > 0).to(signal.dtype)
    rest = torch.where(counts > 0, noise / counts.clamp_min(1), 1.0)
    return torch.linalg.cholesky(signal * tried * tried[:, None] + rest.diag())
