"""What every calibration of rewards promises."""

import pytest
import torch

from .tables import ADVANTAGES

every = pytest.mark.parametrize("name", ADVANTAGES)
REWARD = torch.tensor([0.3, -2.0, 5.0, 1.0])


@every
def test_order_is_kept_and_the_mean_is_zero(name: str) -> None:
    value = ADVANTAGES[name](REWARD)
    assert value.shape == REWARD.shape and value.dtype == torch.float32
    assert value.argmax() == 2 and value[1] == value.min()
    assert value.mean().item() == pytest.approx(0, abs=1e-6)


@every
@pytest.mark.parametrize("reward", [0.7, 25.3, -1000.1])
def test_equal_rewards_teach_nothing(name: str, reward: float) -> None:
    value = ADVANTAGES[name](torch.full((6,), reward))
    torch.testing.assert_close(value, torch.zeros(6), atol=1e-3 if abs(reward) > 100 else 1e-5, rtol=0)


@every
def test_one_reward_alone_teaches_nothing(name: str) -> None:
    assert ADVANTAGES[name](torch.tensor([3.0])).tolist() == [0.0]


@every
def test_the_order_of_samples_does_not_matter(name: str) -> None:
    order = torch.tensor([3, 1, 0, 2])
    torch.testing.assert_close(ADVANTAGES[name](REWARD[order]), ADVANTAGES[name](REWARD)[order])


@every
def test_what_all_rewards_share_says_nothing(name: str) -> None:
    torch.testing.assert_close(ADVANTAGES[name](REWARD + 7), ADVANTAGES[name](REWARD), atol=1e-5, rtol=1e-4)


@every
def test_rewards_are_only_read(name: str) -> None:
    given = REWARD.clone()
    assert ADVANTAGES[name](given) is not given and torch.equal(given, REWARD)
    assert torch.equal(ADVANTAGES[name](given), ADVANTAGES[name](given))
