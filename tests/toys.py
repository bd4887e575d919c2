"""Environments that cost nothing: pictures are a function of the initial noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


def noise_itself(x_T: Tensor, prompt: str) -> Tensor:
    """Pictures that are their noise."""
    return x_T


@dataclass
class Toy:
    """An environment of the function `make`, that counts the pictures of each call in `sizes`."""

    latent_shape: tuple[int, ...]
    make: Callable[[Tensor, str], Tensor] = noise_itself
    batch_size: int = 16
    forwards: int = 1
    sizes: list[int] = field(default_factory=list)

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        self.sizes.append(len(x_T))
        return self.make(x_T, prompt)
