r"""The worth of anchors (fixed noises that prompts share): for each, a Gaussian process over prompts.

    r = b_c + q_k(c) + noise,    q_k ~ GP(0, τ² κ)

Symbols:    c = prompt, k = anchor, b = a prompt's mean, q = advantage, τ² = variance of q, κ = kernel
References: Rasmussen and Williams (2006), Gaussian Processes for Machine Learning, sections 2.2, 2.7
"""

import torch
from torch import Tensor


def posterior(gram: Tensor, sums: Tensor, counts: Tensor, noise: float) -> Tensor:
    """Coefficients α `(P, K)` of the posterior means q(c) = κ(c, ·) α, for P prompts and K anchors.

    Arguments:
        gram: κ between prompts, `(P, P)`.
        sums: of rewards in standard deviations, by prompt and anchor, `(P, K)`.
        counts: number of these rewards, `(P, K)`.
        noise: share of the rewards' variance that anchor and prompt do not explain, in (0, 1).
    """
    means = sums / counts.clamp_min(1)
    observed = [column.nonzero()[:, 0] for column in counts.T]  # the prompts with rewards of each anchor
    inverses = []
    # b by generalised least squares; a prompt without rewards gets 0
    precision, target = torch.diag((counts.sum(1) == 0).to(sums.dtype)), torch.zeros_like(sums[:, 0])
    for anchor, rows in enumerate(observed):
        covariance = (1 - noise) * gram[rows][:, rows] + torch.diag(noise / counts[rows, anchor])
        inverses.append(torch.cholesky_inverse(torch.linalg.cholesky(covariance)))
        precision[rows[:, None], rows] += inverses[-1]
        target[rows] += inverses[-1] @ means[rows, anchor]
    baseline = torch.linalg.solve(precision, target)
    coefficients = torch.zeros_like(sums)
    for anchor, (rows, inverse) in enumerate(zip(observed, inverses, strict=True)):
        coefficients[rows, anchor] = (1 - noise) * inverse @ (means[rows, anchor] - baseline[rows])
    return coefficients
