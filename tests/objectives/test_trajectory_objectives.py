"""Objectives of trajectories against hand-worked values; their identities are in tests/parity."""

import math

import pytest
import torch

from diffalign.objectives import dpo_loss, dpok_loss, gaussian_kl


def test_dpo_by_hand_and_where_it_pushes() -> None:
    log_prob = torch.tensor([[0.2], [0.1], [0.0], [0.3]], requires_grad=True)
    loss, _ = dpo_loss(log_prob, torch.zeros(4, 1), beta=2.0)
    margins = [2 * (0.2 - 0.0), 2 * (0.1 - 0.3)]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 2
    assert loss.item() == pytest.approx(expected)
    pushed = torch.autograd.grad(loss, log_prob)[0]
    assert (pushed[:2] < 0).all() and (pushed[2:] > 0).all()  # winners up, losers down
    with pytest.raises(ValueError, match="pairs"):
        dpo_loss(log_prob[:3], torch.zeros(3, 1), beta=1.0)


def test_divergences_of_other_shapes_are_refused() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4)
    with pytest.raises(ValueError, match="one shape"):
        gaussian_kl(a, b[:1], 0.3)
    column = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"kl must be \(B, K\)"):
        dpok_loss(column, column, column, gaussian_kl(a, b, 0.3), clip_range=0.1, alpha=1.0, beta=1.0)
