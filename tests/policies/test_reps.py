"""The best weights within a trust region."""

import math

import pytest
import torch

from diffalign.policies.reps import reps_weights


@pytest.mark.parametrize("effective", [1.5, 3.0, 9.0])
def test_the_bound_holds_and_nothing_within_it_is_better(effective: float) -> None:
    torch.manual_seed(0)
    values = torch.randn(12) * 5
    weights = reps_weights(values, effective)
    entropy = -torch.xlogy(weights, weights).sum()
    assert abs(float(entropy) - math.log(effective)) < 1e-3 and abs(float(weights.sum()) - 1) < 1e-5
    for _ in range(300):
        other = (weights.log() + 0.1 * torch.randn(12)).softmax(0)
        if -torch.xlogy(other, other).sum() >= entropy:
            assert other @ values <= weights @ values + 1e-4


def test_values_in_other_units_give_the_same_weights() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 3.5])
    torch.testing.assert_close(reps_weights(values, 2), reps_weights(1000 * values - 7, 2), atol=1e-4, rtol=0)


def test_where_nothing_is_better_all_are_alike() -> None:
    assert (reps_weights(torch.zeros(4), 1) == 0.25).all()
    assert (reps_weights(torch.tensor([1.0, 2.0]), 2) == 0.5).all()
    with pytest.raises(ValueError, match="at least 1"):
        reps_weights(torch.ones(3), 0.5)
