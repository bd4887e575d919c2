import pytest

from diffalign.strategies import backward_interval, sliding_interval


def test_the_backward_interval_grows_from_its_first_length_to_the_whole() -> None:
    lengths = [len(backward_interval(20, e, 50, 14)) for e in range(50)]
    assert lengths[0] == 14 and lengths[-1] == 20 and lengths == sorted(lengths)
    assert [lengths.count(n) for n in (14, 19, 20)] == [8, 7, 7]  # n_0 + ⌊7 e / 50⌋, at most 20
    assert backward_interval(20, 0, 50, 14) == range(6, 20)
    assert backward_interval(20, 3, 5, 20) == range(20)


@pytest.mark.parametrize(("round", "first"), [(0, 0), (0, 21), (5, 14), (-1, 14)])
def test_an_interval_that_does_not_fit_is_refused(round: int, first: int) -> None:
    with pytest.raises(ValueError):
        backward_interval(20, round, 5, first)


def test_a_window_slides_to_the_picture_and_begins_anew() -> None:
    starts = [sliding_interval(6, round, 4, 2).start for round in range(8)]
    assert starts == [0, 0, 1, 1, 2, 2, 0, 0]
    assert sliding_interval(6, 5, 4, 2) == range(2, 6) and sliding_interval(6, 9, 6, 1) == range(6)


@pytest.mark.parametrize(("round", "size", "every"), [(0, 0, 1), (0, 7, 1), (0, 4, 0), (-1, 4, 1)])
def test_a_window_that_does_not_fit_is_refused(round: int, size: int, every: int) -> None:
    with pytest.raises(ValueError):
        sliding_interval(6, round, size, every)
