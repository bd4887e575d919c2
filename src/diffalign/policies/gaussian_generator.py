r"""A Gaussian a prompt, of every element or of a basis.   π_φ(x_T | c) = N(μ_φ(c), σ_φ(c)²)

A learned query for each patch of the latent (each mode of a basis) reads the prompt's token states by
cross-attention and says mean and log std there. The last layer starts at zero, so that the first policy
is N(0, I).

Symbols:    c = prompt, μ = mean, σ = std, x_T = initial noise, φ = the generator's weights
References: Miao et al. (2025), https://arxiv.org/abs/2506.12036
"""

import math
from dataclasses import dataclass

import torch
from torch import nn

from diffalign.policies.basis import Basis
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import MAX_COEFFICIENT, NoiseDistribution


@dataclass(frozen=True)
class GaussianShape:
    """What a Gaussian generator is made of.

    Attributes:
        latent: the shape of one latent, `(C, H, W)`.
        text_width: d of the prompt's token states.
        basis: where it decides: identity, or dctK, the K×K lowest frequencies.
        std: learned, or preserving (σ² = 1 − μ², so that second moments stay 1).
        patch: side of a query's patch; in a dct basis each mode has its query.
        width: of the queries.
        layers: of cross-attention.
        heads: of attention.
    """

    latent: tuple[int, ...]
    text_width: int
    basis: str = "identity"
    std: str = "learned"
    patch: int = 2
    width: int = 64
    layers: int = 2
    heads: int = 4


class GaussianGenerator(NoiseGenerator):
    """The learnable generator; it starts as N(0, I) for every prompt.

    Raises:
        ValueError: if patches do not tile the latent, or there is no such basis.
    """

    kind = "gaussian"
    shape_type = GaussianShape
    shape: GaussianShape

    def make(self, seed: int) -> None:
        """Queries, decoder and a head that starts at zero."""
        shape = self.shape
        self.coefficients = Basis(shape.basis, shape.latent).shape
        *channels, height, width = self.coefficients
        self.patch = shape.patch if shape.basis == "identity" else 1
        if height % self.patch or width % self.patch:
            raise ValueError(f"patches of {self.patch} do not tile a latent of {height} × {width}")
        self.channels = math.prod(channels)
        self.grid = height // self.patch, width // self.patch
        outputs = (2 if shape.std == "learned" else 1) * self.channels * self.patch**2
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.queries = nn.Parameter(torch.randn(math.prod(self.grid), shape.width))
            self.read = nn.Linear(shape.text_width, shape.width)
            layer = nn.TransformerDecoderLayer(
                shape.width, shape.heads, 4 * shape.width, dropout=0.0, batch_first=True, norm_first=True
            )
            self.decoder = nn.TransformerDecoder(layer, shape.layers, nn.LayerNorm(shape.width))
            self.head = nn.Linear(shape.width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, prompt: str) -> NoiseDistribution:
        """The distribution of `prompt`'s initial noise, differentiable in the weights."""
        memory = self.read(self.states(prompt))[None]
        out = self.head(self.decoder(self.queries[None], memory))[0]
        rows, columns = self.grid
        out = out.view(rows, columns, -1, self.channels, self.patch, self.patch)
        out = out.permute(2, 3, 0, 4, 1, 5).reshape(-1, *self.coefficients)
        if self.shape.std == "preserving":
            mean = MAX_COEFFICIENT * out[0].tanh()
            std = (1 - mean.square()).sqrt()
        else:
            mean, std = out[0], out[1].clamp(-3, 3).exp()
        return NoiseDistribution(mean, std, self.shape.latent, self.shape.basis)
