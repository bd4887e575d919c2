"""Baselines against hand-worked values; what all of them share is in tests/contracts."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffalign.advantages import ValueNet, leave_one_out, rank, standardise
from diffalign.advantages.drcm import value_loss


def test_leave_one_out() -> None:
    torch.testing.assert_close(leave_one_out(torch.tensor([1.0, 2.0, 6.0])), torch.tensor([-3.0, -1.5, 4.5]))


@pytest.mark.parametrize("reward", [0.1, 25.3, 1000.1, -3e7])
@pytest.mark.parametrize("baseline", [leave_one_out, rank, standardise])
def test_equal_rewards_say_nothing(baseline: Callable[[Tensor], Tensor], reward: float) -> None:
    """Nor do those that differ as float32 rounds."""
    rewards = torch.full((30,), reward)
    assert baseline(rewards).tolist() == [0] * 30
    rewards[::7] = torch.nextafter(rewards[::7], torch.tensor(torch.inf))
    assert baseline(rewards).tolist() == [0] * 30


@pytest.mark.parametrize("baseline", [leave_one_out, rank, standardise])
def test_great_rewards_are_numbers(baseline: Callable[[Tensor], Tensor]) -> None:
    assert baseline(torch.tensor([1e16, -1e16, 0.0])).isfinite().all()


def test_rank_utilities() -> None:
    best, middle = math.log(2.5), math.log(2.5) - math.log(2)
    expected = torch.tensor([best, middle, 0.0]) * 3 / (best + middle) - 1
    torch.testing.assert_close(rank(torch.tensor([9.0, 0.1, -7.0])), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 100.0])
def test_rank_and_standardise_ignore_the_scale(scale: float) -> None:
    reward = torch.tensor([0.3, -2.0, 5.0, 1.0])
    torch.testing.assert_close(rank(reward * scale), rank(reward))
    torch.testing.assert_close(standardise(reward * scale), standardise(reward), atol=1e-2, rtol=1e-2)


def test_value_net_learns_the_mean_reward_of_a_distribution() -> None:
    torch.manual_seed(0)
    value = ValueNet(4)
    optimiser = torch.optim.AdamW(value.parameters(), lr=1e-2)
    mean, std = torch.zeros(16, 4), torch.ones(16, 4)
    reward = torch.randn(16) + 3
    for _ in range(200):
        optimiser.zero_grad()
        value_loss(value(mean, std), reward).backward()
        optimiser.step()
    torch.testing.assert_close(value(mean, std), reward.mean().expand(16), atol=0.05, rtol=0)


def test_value_loss_refuses_shapes_that_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"\(B,\)"):
        value_loss(torch.zeros(3, 1), torch.zeros(3))
