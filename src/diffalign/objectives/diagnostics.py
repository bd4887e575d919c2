"""Diagnostics that every objective returns with its loss."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

#: Of a log-ratio: the exponential of a greater one would leave no figure a number of 32 bits.
GREATEST = 80.0


@dataclass(frozen=True)
class Diagnostics:
    """How far the policy has moved, from probability ratios ρ.

    Attributes:
        approx_kl: mean of (ρ − 1) − log ρ, in nats.
        clip_fraction: share of ratios outside the clip range.
        max_ratio_error: largest |ρ − 1|.
    """

    approx_kl: float
    clip_fraction: float
    max_ratio_error: float

    @classmethod
    def mean(cls, batches: Sequence[Self], sizes: Sequence[int]) -> Self:
        """The mean over several batches, weighted by their sizes; of `max_ratio_error` the largest."""
        weighted = list(zip(batches, sizes, strict=True))
        return cls(
            sum(batch.approx_kl * size for batch, size in weighted) / sum(sizes),
            sum(batch.clip_fraction * size for batch, size in weighted) / sum(sizes),
            max(batch.max_ratio_error for batch in batches),
        )


def diagnose(log_ratio: Tensor, clip_range: float = float("inf")) -> Diagnostics:
    """Diagnostics of log-ratios with shape `(B, K)`."""
    log_ratio = log_ratio.detach().clamp(max=GREATEST)
    ratio = log_ratio.exp()
    error = (ratio - 1).abs()
    return Diagnostics(
        approx_kl=float((ratio - 1 - log_ratio).mean()),
        clip_fraction=float((error > clip_range).float().mean()),
        max_ratio_error=float(error.max()),
    )


def check_shapes(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> None:
    """Raises a `ValueError` unless all have the same shape `(B, K)`: others would broadcast."""
    if not log_prob.shape == old_log_prob.shape == advantage.shape or log_prob.ndim != 2:
        shapes = (tuple(log_prob.shape), tuple(old_log_prob.shape), tuple(advantage.shape))
        raise ValueError(f"log_prob, old_log_prob and advantage must all be (B, K), not {shapes}")
