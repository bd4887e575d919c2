"""What every strategy promises of the decisions that it visits."""

import pytest

from .tables import INTERVALS

ROUNDS = [(3, 1), (5, 2), (20, 50)]


@pytest.mark.parametrize("name", INTERVALS)
@pytest.mark.parametrize(("steps", "rounds"), ROUNDS)
def test_intervals_are_of_decisions_and_the_same_each_time(name: str, steps: int, rounds: int) -> None:
    intervals = [INTERVALS[name](steps, round, rounds) for round in range(rounds)]
    for interval in intervals:
        assert interval and interval.start >= 0 and interval.step == 1
        assert interval.stop <= steps
    assert intervals == [INTERVALS[name](steps, round, rounds) for round in range(rounds)]


@pytest.mark.parametrize("name", ["full", "backward"])
@pytest.mark.parametrize(("steps", "rounds"), ROUNDS)
def test_those_that_end_at_the_picture_never_shrink(name: str, steps: int, rounds: int) -> None:
    intervals = [INTERVALS[name](steps, round, rounds) for round in range(rounds)]
    assert all(interval.stop == steps for interval in intervals)
    lengths = [len(interval) for interval in intervals]
    assert lengths == sorted(lengths)
