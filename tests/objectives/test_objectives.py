"""Objectives against hand-worked values and each other."""

import math

import pytest
import torch

from diffalign.objectives import policy_gradient_loss, ppo_loss
from diffalign.objectives.diagnostics import diagnose


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def test_policy_gradient_value() -> None:
    loss, diagnostics = policy_gradient_loss(column(math.log(2), 0.0), column(0.0, 0.0), column(3.0, -1.0))
    assert loss.item() == pytest.approx(-(2 * 3 - 1) / 2)
    assert diagnostics.max_ratio_error == pytest.approx(1.0)
    assert diagnostics.approx_kl == pytest.approx((1 - math.log(2)) / 2)


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.5, 1.0, -1.2),  # a good sample gains no more beyond 1 + ε
        (0.5, 1.0, -0.5),  # but is pulled back from below
        (1.5, -1.0, 1.5),  # a bad sample is pushed down from above
        (0.5, -1.0, 0.8),  # and no further below 1 − ε
    ],
)
def test_ppo_is_pessimistic(ratio: float, advantage: float, expected: float) -> None:
    loss, diagnostics = ppo_loss(column(math.log(ratio)), column(0.0), column(advantage), clip_range=0.2)
    assert loss.item() == pytest.approx(expected)
    assert diagnostics.clip_fraction == 1.0


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(B, K\)"):
        policy_gradient_loss(torch.zeros(4, 1), torch.zeros(4, 1), torch.zeros(4))


def test_a_ratio_too_great_for_a_number_leaves_finite_figures() -> None:
    found = diagnose(torch.tensor([[0.0], [1000.0]]), clip_range=0.1)
    assert (
        found.clip_fraction == 0.5 and math.isfinite(found.approx_kl) and math.isfinite(found.max_ratio_error)
    )
