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
    means = sums / counts.clamp_min(1)
    known = [own.nonzero()[:, 0] for own in counts.T]  # the prompts that tried each place
    inverses = []
    # b by generalised least squares
    precision, target = torch.diag((counts.sum(1) == 0).to(sums.dtype)), torch.zeros_like(sums[:, 0])
    for place, rows in enumerate(known):
        covariance = (1 - noise) * gram[rows][:, rows] + torch.diag(noise / counts[rows, place])
        inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(covariance)))
        precision[rows[:, None], rows] += inverses[-1]
        target[rows] += inverses[-1] @ means[rows, place]
    baseline = torch.linalg.solve(precision, target)
    coefficients = torch.zeros_like(sums)
    for place, (rows, inverse) in enumerate(zip(known, inverses, strict=True)):
        coefficients[rows, place] = (1 - noise) * inverse @ (means[rows, place] - baseline[rows])
    return coefficients
