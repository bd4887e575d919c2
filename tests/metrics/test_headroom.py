"""Variance components and the expected best, against what they are of known draws."""

from itertools import combinations

import pytest
import torch

from diffalign.metrics.headroom import Shares, expected_best, variance_shares


def draws(prompt: float, noise: float, both: float) -> torch.Tensor:
    """Rewards of 200 prompts and 100 seeds, whose parts have these standard deviations."""
    generator = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return prompt * randn(200, 1) + noise * randn(1, 100) + both * randn(200, 100) + 5


@pytest.mark.parametrize(("prompt", "noise", "both"), [(1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 1, 1), (1, 2, 3)])
def test_the_shares_are_those_of_the_draws(prompt: float, noise: float, both: float) -> None:
    shares = variance_shares(draws(prompt, noise, both))
    total = prompt**2 + noise**2 + both**2
    for share, sd in ((shares.prompt, prompt), (shares.noise, noise), (shares.both, both)):
        assert share == pytest.approx(sd**2 / total, abs=0.1)
    assert shares.prompt + shares.noise + shares.both == pytest.approx(1)
    assert shares.seeds == shares.noise + shares.both


def test_rewards_that_are_equal_have_no_shares() -> None:
    assert variance_shares(torch.full((3, 4), 2.0)) == Shares(0, 0, 0)
    for wrong in (torch.zeros(1, 4), torch.zeros(4), torch.full((2, 2), torch.nan)):
        with pytest.raises(ValueError, match="finite rewards"):
            variance_shares(wrong)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_expected_best_is_the_mean_over_all_subsets(n: int) -> None:
    rewards = torch.tensor([[3.0, 1.0, 4.0, 1.0, 5.0], [2.0, 7.0, 1.0, 8.0, 2.0]])
    expected = [
        sum(max(subset) for subset in combinations(row, n)) / len(list(combinations(row, n)))
        for row in rewards.tolist()
    ]
    assert expected_best(rewards, n).tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="the best of 6 of 5"):
        expected_best(rewards, 6)
