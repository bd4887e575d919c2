r"""Natural gradient of a noise policy.   θ ← θ − η F⁻¹ ∇L

For N(m, s²) the Fisher matrix is diagonal: 1/s² for m, 2 for log s. In the variance-preserving
policy s² = 1 − m² ties both: F = 1/s² + 2 m²/s⁴ = (1 + m²)/s⁴.

For the weights w = softmax(θ) of a mixture F = diag(w) − w wᵀ, and the step moves θ_k by η times the
mean advantage of component k's samples, up to a constant: weights grow exponentially with it.

The gradient arrives from log-probabilities that are means over the latent's D elements; it is
multiplied by D to undo that.

Deviations: F of the weights is exact where components do not overlap; a component with w_k < 1/K is
            stepped as if w_k = 1/K, which bounds the step of one sample among B to η A K / B.
Symbols:    η = learning rate, F = Fisher information, m = mean, s = std, w = weights, θ = logits
References: Amari (1998), https://doi.org/10.1162/089976698300017746
            Kakade (2001), https://papers.nips.cc/paper/2073-a-natural-policy-gradient
            Wierstra et al. (JMLR 2014), https://jmlr.org/papers/v15/wierstra14a.html
"""

import math
from typing import Any

import torch

from diffalign.policies.mixture import MixturePolicy
from diffalign.policies.noise import MAX_COEFFICIENT, NoisePolicy


class NaturalGradient(torch.optim.Optimizer):
    """Stateless: one step moves by `lr` along the natural gradient."""

    def __init__(self, policy: NoisePolicy | MixturePolicy, lr: float) -> None:
        super().__init__(policy.parameters(), {"lr": lr})
        self.policy = policy

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Takes one step from the parameters' gradients."""
        policy: Any = self.policy
        scale = self.param_groups[0]["lr"] * math.prod(policy.latent)
        if isinstance(policy, MixturePolicy):
            share = policy.logits.softmax(0).clamp_min(1 / len(policy.logits))
            policy.logits.sub_(scale * policy.logits.grad / share)
            return
        mean, gradient = policy.mean, policy.mean.grad
        if policy.std_mode == "preserving":
            variance = 1 - mean.square()
            mean.sub_(scale * gradient * variance.square() / (1 + mean.square()))
            mean.clamp_(-MAX_COEFFICIENT, MAX_COEFFICIENT)
        else:
            mean.sub_(scale * gradient * (2 * policy.log_std).exp())
            policy.log_std.sub_(scale * policy.log_std.grad / 2)
