r"""The best weights within a trust region, in closed form.

    max_w Σ_k w_k q_k  with  KL(w ‖ 1/K) ≤ log(K/n)    ⇒    w_k ∝ exp(q_k/η),  η such that the bound holds

Symbols:    w = weights, q = expected reward, n = effective number, η = temperature
References: Peters et al. (AAAI 2010), relative entropy policy search, https://doi.org/10.1609/aaai.v24i1.7727
"""

import math

import torch
from torch import Tensor

STEPS = 60  # of bisection: to the last digit


def reps_weights(values: Tensor, effective: float) -> Tensor:
    """Weights `(K,)` of `values` `(K,)`, whose entropy is at least log `effective`.

    Raises:
        ValueError: if `effective` is below 1.
    """
    if effective < 1:
        raise ValueError(f"weights are of at least 1 component, not of {effective}")
    scale = float(values.max() - values.min())
    if scale == 0 or effective >= len(values):
        return torch.full_like(values, 1 / len(values))
    values, low, high = (values - values.max()) / scale, 1e-4, 1e4
    for _ in range(STEPS):
        middle = math.sqrt(low * high)
        weights = (values / middle).softmax(0)
        if -torch.xlogy(weights, weights).sum() < math.log(effective):
            low = middle
        else:
            high = middle
    return (values / high).softmax(0)
