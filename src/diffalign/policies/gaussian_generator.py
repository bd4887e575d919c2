r"""A Gaussian a prompt, of every element or of a basis.   π_φ(x_T | c) = N(μ_φ(c), σ_φ(c)²)

A learned query for each patch of the latent (each mode of a basis) reads the prompt's token states by
cross-attention and says mean and log std there. The last layer starts at zero, so that the first policy
is N(0, I).

Symbols:    c = prompt, μ = mean, σ = std, x_T = initial noise, φ = the generator's weights
References: Miao et al. (2025), https://arxiv.org/abs/2506.12036
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from diffalign.policies.basis import Basis
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import MAX_COEFFICIENT, NoiseDistribution
from diffalign.settings.fields import Positive, Settings


@dataclass(frozen=True)
class GaussianShape(Settings):
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

    latent: tuple[Positive, ...]
    text_width: Positive
    basis: str = "identity"
    std: Literal["learned", "preserving"] = "learned"
    patch: Positive = 2
    width: Positive = 64
    layers: Positive = 2
    heads: Positive = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width = self.coefficients[-2:]
        if height % self.side or width % self.side:
            raise ValueError(f"patches of {self.side} do not tile a latent of {height} × {width}")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not share a width of {self.width}")

    @property
    def coefficients(self) -> tuple[int, ...]:
        """The shape of what it decides."""
        return Basis(self.basis, self.latent).shape

    @property
    def side(self) -> int:
        """Of a query's patch."""
        return self.patch if self.basis == "identity" else 1

    @property
    def grid(self) -> tuple[int, int]:
        """How many queries there are, down and across."""
        height, width = self.coefficients[-2:]
        return height // self.side, width // self.side

    @property
    def outputs(self) -> int:
        """Numbers that the head says of a patch."""
        moments = 2 if self.std == "learned" else 1
        return moments * math.prod(self.coefficients[:-2]) * self.side**2


class GaussianGenerator(NoiseGenerator):
    """The learnable generator; it starts as N(0, I) for every prompt.

    Raises:
        ValueError: if patches do not tile the latent, or there is no such basis.
    """

    kind = "gaussian"
    shape_type = GaussianShape
    shape: GaussianShape

    @classmethod
    def sizes(cls, shape: GaussianShape) -> Mapping[str, tuple[int, ...]]:
        return {
            "queries": (math.prod(shape.grid), shape.width),
            "read.weight": (shape.width, shape.text_width),
            f"decoder.layers.{shape.layers - 1}.norm1.weight": (shape.width,),
            "head.bias": (shape.outputs,),
        }

    def make(self, seed: int) -> None:
        """Queries, decoder and a head that starts at zero."""
        shape = self.shape
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.queries = nn.Parameter(torch.randn(math.prod(shape.grid), shape.width))
            self.read = nn.Linear(shape.text_width, shape.width)
            layer = nn.TransformerDecoderLayer(
                shape.width, shape.heads, 4 * shape.width, dropout=0.0, batch_first=True, norm_first=True
            )
            self.decoder = nn.TransformerDecoder(layer, shape.layers, nn.LayerNorm(shape.width))
            self.head = nn.Linear(shape.width, shape.outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, prompt: str) -> NoiseDistribution:
        """The distribution of `prompt`'s initial noise, differentiable in the weights."""
        memory = self.read(self.states(prompt))[None]
        out = self.head(self.decoder(self.queries[None], memory))[0]
        (rows, columns), shape = self.shape.grid, self.shape.coefficients
        out = out.view(rows, columns, -1, math.prod(shape[:-2]), *2 * [self.shape.side])
        out = out.permute(2, 3, 0, 4, 1, 5).reshape(-1, *shape)
        if self.shape.std == "preserving":
            mean = MAX_COEFFICIENT * out[0].tanh()
            std = (1 - mean.square()).sqrt()
        else:
            mean, std = out[0], out[1].clamp(-3, 3).exp()
        return NoiseDistribution(mean, std, self.shape.latent, self.shape.basis)
