r"""Branch-based sampling: b trajectories that part at the first step of the training interval.

Samples of a group share x_T and all decisions before the interval, which are made once, so that their
rewards differ by decisions in the interval alone. With b = 1 every group is a single sample.

References: Hu et al. (CVPR 2025), section 4.2, https://arxiv.org/abs/2503.11240
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Branches:
    """Groups of b = `number` samples; sample i belongs to group i // b.

    Raises:
        ValueError: if `number` is less than 1.
    """

    number: int = 1

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ValueError(f"a group has at least 1 branch, not {self.number}")

    def samples(self, groups: Sequence[int]) -> list[int]:
        """The numbers of the samples in `groups`, group by group."""
        return [group * self.number + branch for group in groups for branch in range(self.number)]

    def split(self, x_t: Tensor) -> Tensor:
        """From latents of groups `(G, *latent)` to those of their samples `(G·b, *latent)`."""
        return x_t.repeat_interleave(self.number, 0)
