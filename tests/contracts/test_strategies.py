"""What every strategy promises of the decisions that it visits."""

import pytest

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
