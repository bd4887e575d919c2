r"""Orthonormal bases of subspaces of the latent.

The lowest modes of the discrete cosine transform over height and width carry layout and colour;
a policy that learns in them has k²·C dimensions instead of H·W·C.

    B[m, i] = sqrt((1 + [m > 0]) / n) cos(π m (i + 1/2) / n)        (DCT-II, orthonormal)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class Basis(ABC):
    """A linear map between a latent `(B, *latent)` and coefficients `(B, *shape)`, with B Bᵀ = I."""

    name: str
    shape: tuple[int, ...]

    @abstractmethod
    def project(self, x: Tensor) -> Tensor:
        """Coefficients with shape `(B, *shape)` of latents with shape `(B, *latent)`."""

    @abstractmethod
    def expand(self, z: Tensor) -> Tensor:
        """Latents with shape `(B, *latent)` of coefficients with shape `(B, *shape)`."""


class Identity(Basis):
    """Every element of the latent is its own dimension, as in FIND."""

    name = "identity"

    def __init__(self, latent: Sequence[int]) -> None:
        self.shape = tuple(latent)

    def project(self, x: Tensor) -> Tensor:
        return x

    def expand(self, z: Tensor) -> Tensor:
        return z


class LowFrequency(Basis):
    """The `modes` × `modes` lowest DCT modes over the last two axes, in every channel (and frame)."""

    def __init__(self, latent: Sequence[int], modes: int) -> None:
        if len(latent) < 3:
            raise ValueError(f"a latent of shape {tuple(latent)} has no height and width to take modes of")
        *channels, height, width = latent
        self.name = f"dct{modes}"
        self.rows = dct_matrix(height, min(modes, height))
        self.columns = dct_matrix(width, min(modes, width))
        self.shape = (*channels, len(self.rows), len(self.columns))

    def project(self, x: Tensor) -> Tensor:
        return torch.einsum("...hw,mh,nw->...mn", x, self.rows.to(x), self.columns.to(x))

    def expand(self, z: Tensor) -> Tensor:
        return torch.einsum("...mn,mh,nw->...hw", z, self.rows.to(z), self.columns.to(z))


def dct_matrix(n: int, modes: int) -> Tensor:
    """The first `modes` rows of the orthonormal DCT-II, with shape `(modes, n)`."""
    m, i = torch.arange(modes)[:, None], torch.arange(n)[None]
    scale = torch.where(m > 0, math.sqrt(2 / n), math.sqrt(1 / n))
    return scale * torch.cos(math.pi * m * (i + 0.5) / n)


def make_basis(name: str, latent: Sequence[int]) -> Basis:
    """The basis called `name` ("identity", "dct3" …) for latents of shape `latent`.

    Raises:
        ValueError: if there is no such basis.
    """
    if name == "identity":
        return Identity(latent)
    if name.startswith("dct") and name[3:].isdigit() and int(name[3:]) > 0:
        return LowFrequency(latent, int(name[3:]))
    raise ValueError(
        f"unknown basis {name!r}; choose 'identity' or 'dctK' with K modes an axis, such as 'dct3'"
    )
