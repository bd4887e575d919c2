r"""Orthonormal bases of subspaces of the latent.

The lowest modes of the discrete cosine transform over height and width carry layout and colour;
a policy that learns in them has k²·C dimensions instead of H·W·C.

    B[m, i] = sqrt((1 + [m > 0]) / n) cos(π m (i + 1/2) / n)        (DCT-II, orthonormal)
"""

import math
import re
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from diffalign.diffusion.packing import Grid, on_grid, packed

LARGEST = 2**28  # elements of a latent, 1 GiB


class Basis:
    """A linear map between a latent `(B, *latent)` and coefficients `(B, *shape)`, with B Bᵀ = I.

    Arguments:
        name: "identity", where every element of the latent is its own dimension, as in FIND; or "dctK", the
            K × K lowest DCT modes over the last two axes, in every channel (and frame); "dctK@h×w" over the
            grid of packed latents.
        latent: the shape of one latent.

    Raises:
        ValueError: if there is no such basis, or none of such latents; if latents are larger than any.
    """

    def __init__(self, name: str, latent: Sequence[int]) -> None:
        if min(latent, default=0) < 1 or math.prod(latent) > LARGEST:
            raise ValueError(f"there are no latents of shape {tuple(latent)}")
        self.shape, self.modes, self.grid = tuple(latent), tuple[tuple[int, int], ...](), None
        if name == "identity":
            return
        known = re.fullmatch(r"dct([1-9]\d*)(?:@([1-9]\d*)×([1-9]\d*))?", name)
        if known is None:
            raise ValueError(
                f"unknown basis {name!r}; choose 'identity' or 'dctK' with K modes an axis, such as 'dct3'"
            )
        modes, *sides = (int(number) for number in known.groups() if number)
        self.grid = (sides[0], sides[1]) if sides else None
        if self.grid is None and len(latent) < 3:
            raise ValueError(f"a latent of shape {tuple(latent)} has no height and width to take modes of")
        latent = on_grid(torch.empty(1, *latent, device="meta"), self.grid).shape[1:]
        self.modes = tuple((n, min(modes, n)) for n in latent[-2:])
        self.shape = (*latent[:-2], *(kept for _, kept in self.modes))

    @cached_property
    def matrices(self) -> tuple[Tensor, ...]:
        """Of height and width, made where they are used: of a file's sizes only the shape is known to fit."""
        return tuple(dct_matrix(n, kept) for n, kept in self.modes)

    def project(self, x: Tensor) -> Tensor:
        """Coefficients with shape `(B, *shape)` of latents with shape `(B, *latent)`."""
        return self._apply("...hw,mh,nw->...mn", on_grid(x, self.grid))

    def expand(self, z: Tensor) -> Tensor:
        """Latents with shape `(B, *latent)` of coefficients with shape `(B, *shape)`."""
        return packed(self._apply("...mn,mh,nw->...hw", z), self.grid)

    def _apply(self, equation: str, x: Tensor) -> Tensor:
        return torch.einsum(equation, x, *(matrix.to(x) for matrix in self.matrices)) if self.matrices else x


def basis_on(grid: Grid, name: str) -> str:
    """The basis called `name` of latents on a grid."""
    return name if grid is None or name == "identity" else f"{name}@{grid[0]}×{grid[1]}"


def dct_matrix(n: int, modes: int) -> Tensor:
    """The first `modes` rows of the orthonormal DCT-II, with shape `(modes, n)`."""
    m, i = torch.arange(modes)[:, None], torch.arange(n)[None]
    scale = torch.where(m > 0, math.sqrt(2 / n), math.sqrt(1 / n))
    return scale * torch.cos(math.pi * m * (i + 0.5) / n)
