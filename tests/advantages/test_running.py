import pytest
import torch

from diffalign.advantages.contrast import best_and_worst, couples, pairs
from diffalign.advantages.running import RunningStatistics


def test_each_prompt_is_normalised_by_its_own_last_rounds() -> None:
    statistics = RunningStatistics(window=1)
    first = statistics.normalise(["a", "b", "a", "b"], torch.tensor([1.0, 10.0, 3.0, 30.0]))
    torch.testing.assert_close(first, torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    second = statistics.normalise(["a", "a"], torch.tensor([5.0, 7.0]))  # of 1, 3, 5, 7
    torch.testing.assert_close(second, torch.tensor([1.0, 3.0]) / 5**0.5, rtol=1e-4, atol=1e-4)
    third = statistics.normalise(["a", "a"], torch.tensor([5.0, 7.0]))  # of 5, 7, 5, 7
    torch.testing.assert_close(third, torch.tensor([-1.0, 1.0]))


def test_equal_rewards_say_nothing() -> None:
    for reward in (2.0, 25.3, 1000.1, -3e7):
        rewards = torch.full((7,), reward)
        assert RunningStatistics().normalise(["a"] * 7, rewards).tolist() == [0] * 7
        rewards[3] = torch.nextafter(rewards[3], torch.tensor(torch.inf))  # as a network rounds
        assert RunningStatistics().normalise(["a"] * 7, rewards).tolist() == [0] * 7


def test_a_prompt_with_few_rewards_is_compared_with_all_of_the_round() -> None:
    statistics = RunningStatistics(minimum=3)
    prompts, rewards = ["a", "b", "c", "c", "c"], torch.tensor([1.0, 2.0, 6.0, 7.0, 8.0])
    first = statistics.normalise(prompts, rewards)
    torch.testing.assert_close(first[:2], (rewards[:2] - 4.8) / rewards.std(correction=0))
    torch.testing.assert_close(first[2:], torch.tensor([-1.0, 0.0, 1.0]) * 1.5**0.5)
    second = statistics.normalise(["a", "a"], torch.tensor([2.0, 3.0]))  # of 1, 2, 3
    torch.testing.assert_close(second, torch.tensor([0.0, 1.0]) * 1.5**0.5)


def test_what_is_seen_once_teaches_as_much_as_its_noise_lets_it() -> None:
    """Of 256 of 398 prompts, whose means differ as much as the rewards of one: by its own rewards alone a
    prompt that was seen once would teach nothing."""
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(398, generator=generator)
    correlations = dict[int, float]()
    for minimum in (1, 4):
        found = []
        for _ in range(20):
            chosen = torch.randint(398, (256,), generator=generator)
            luck = torch.randn(256, generator=generator)
            prompts = [f"prompt {i}" for i in chosen.tolist()]
            said = RunningStatistics(minimum=minimum).normalise(prompts, means[chosen] + luck)
            found.append(float(torch.corrcoef(torch.stack([said, luck]))[0, 1]))
        correlations[minimum] = sum(found) / len(found)
    assert correlations[1] < 0.5 and correlations[4] > 0.65


def test_the_state_goes_on_to_the_same() -> None:
    statistics, other = RunningStatistics(), RunningStatistics()
    statistics.normalise(["a", "a"], torch.tensor([0.1, 0.7]))
    other.load(statistics.state())
    rewards = torch.tensor([0.3, 0.4])
    assert torch.equal(statistics.normalise(["a", "a"], rewards), other.normalise(["a", "a"], rewards))


def test_the_best_and_the_worst_of_a_group_are_chosen_if_they_are_good_and_bad() -> None:
    advantage = torch.tensor([0.9, 0.1, -0.8, 0.6, 0.7, 0.2, 0.1, 0.0, -0.1])
    group = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    assert best_and_worst(advantage, group, 0.5) == [0, 2, 4]
    assert best_and_worst(advantage, group, 2.0) == []
    assert pairs(advantage, group, 0.5) == [(0, 2)]
    assert pairs(advantage, group, 0.0) == [(0, 2), (4, 5), (6, 8)]
    assert pairs(torch.zeros(4), torch.tensor([0, 0, 1, 1]), 0.0) == []
    with pytest.raises(ValueError, match="must be"):
        best_and_worst(advantage, group[:, None], 0.5)


def test_couples_are_neighbours_of_one_prompt() -> None:
    assert couples(["a", "b", "a", "a", "b", "a", "a"]).tolist() == [0, 1, 0, 2, 1, 2, 3]
