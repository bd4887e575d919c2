"""What every strategy promises of the decisions that it visits, and of how samples group."""

import pytest
import torch

from diffalign.strategies import Branches

from .tables import INTERVALS


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize(("steps", "rounds"), [(3, 1), (5, 2), (20, 50)])
def test_intervals_end_at_the_picture_and_never_shrink(name: str, steps: int, rounds: int) -> None:
    intervals = [INTERVALS[name](steps, round, rounds) for round in range(rounds)]
    for interval in intervals:
        assert interval and interval.start >= 0 and interval.step == 1
        assert interval.stop == steps
    lengths = [len(interval) for interval in intervals]
    assert lengths == sorted(lengths)
    assert intervals == [INTERVALS[name](steps, round, rounds) for round in range(rounds)]


@pytest.mark.parametrize("number", [1, 2, 5])
def test_each_sample_is_of_one_group(number: int) -> None:
    branches, groups = Branches(number), [0, 3, 4]
    samples = branches.samples(groups)
    assert [sample // number for sample in samples] == [g for g in groups for _ in range(number)]
    assert len(set(samples)) == len(samples) == number * len(groups)
    x_t = torch.arange(3.0).view(3, 1, 1, 1)
    split = branches.split(x_t)
    assert torch.equal(split.flatten(), torch.arange(3.0).repeat_interleave(number))
    assert torch.equal(split[::number], x_t)
