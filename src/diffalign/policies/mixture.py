r"""A mixture of Gaussians around noise that was tried.

    π(z) = Σ_k w_k N(z; a c_k, (1 − a²) I),    w = softmax(θ)

The centres c_k are the first K samples, drawn from N(0, I); what is learned is θ. Each component is a
preconditioned Crank–Nicolson step from its centre, which keeps N(0, I) as it is: with equal weights
and many centres the mixture is N(0, I) again, so that all of its samples are typical noise, however
far the weights have moved. One Gaussian must move its mean where the reward is better on the whole;
the mixture may keep several regions that have nothing in common.

Symbols:    c = centres, a = correlation, w = weights, θ = logits, z = coefficients of x_T in the basis
References: Cotter et al. (2013), eq. 4.2 (the kernel), https://arxiv.org/abs/1202.0709
            Cappé et al. (2004) (population Monte Carlo), https://doi.org/10.1198/106186004X12803
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diffalign.policies.basis import Basis
from diffalign.policies.noise import NoiseDistribution


class MixturePolicy(nn.Module):
    """The learnable mixture; N(0, I), or `start`, until `grow` gives it its centres.

    Arguments:
        latent: the shape of one latent.
        components: K.
        correlation: a, of a component's samples with its centre, in (0, 1).
        basis: where the centres hold: "identity" or "dctK", the K×K lowest frequencies.
        start: what the centres are drawn from.
    """

    __call__: Callable[..., NoiseDistribution]

    def __init__(
        self,
        latent: Sequence[int],
        components: int,
        correlation: float,
        basis: str = "identity",
        start: NoiseDistribution | None = None,
    ) -> None:
        super().__init__()
        self.start = start or NoiseDistribution.standard(latent)
        self.latent, self.basis, self.correlation = tuple(latent), basis, correlation
        shape = Basis(basis, self.latent).shape
        self.logits = nn.Parameter(torch.zeros(components))
        self.centres: Tensor
        self.grown: Tensor
        self.register_buffer("centres", torch.zeros(components, *shape))
        self.register_buffer("grown", torch.tensor(False))

    def grow(self, x_T: Tensor) -> None:
        """Takes samples of `start`, `(K, *latent)`, as centres of equal weights.

        Raises:
            ValueError: if there are not K.
        """
        if len(x_T) != len(self.centres):
            raise ValueError(f"a mixture of {len(self.centres)} grows from as many samples, not {len(x_T)}")
        self.centres.copy_(Basis(self.basis, self.latent).project(x_T))
        self.grown.fill_(True)

    def forward(self) -> NoiseDistribution:
        """The current distribution, differentiable in the logits."""
        if not self.grown:
            return self.start
        std = torch.full_like(self.centres, math.sqrt(1 - self.correlation**2))
        weights = self.logits.softmax(0)
        return NoiseDistribution(
            self.correlation * self.centres, std, self.latent, self.basis, weights=weights
        )
