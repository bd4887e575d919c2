import pytest
import torch

from diffalign.strategies import Branches, backward_interval, full_interval


def test_the_backward_interval_grows_from_its_first_length_to_the_whole() -> None:
    lengths = [len(backward_interval(20, e, 50, 14)) for e in range(50)]
    assert lengths[0] == 14 and lengths[-1] == 20 and lengths == sorted(lengths)
    assert [lengths.count(n) for n in (14, 19, 20)] == [8, 7, 7]  # n_0 + ⌊7 e / 50⌋, at most 20
    assert backward_interval(20, 0, 50, 14) == range(6, 20)
    assert backward_interval(20, 3, 5, 20) == full_interval(20) == range(20)


@pytest.mark.parametrize(("round", "first"), [(0, 0), (0, 21), (5, 14), (-1, 14)])
def test_an_interval_that_does_not_fit_is_refused(round: int, first: int) -> None:
    with pytest.raises(ValueError):
        backward_interval(20, round, 5, first)


def test_branches_are_samples_of_one_group() -> None:
    branches = Branches(3)
    assert branches.samples([2, 5]) == [6, 7, 8, 15, 16, 17]
    assert branches.split(torch.tensor([[1.0], [2.0]])).flatten().tolist() == [1, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match="at least 1"):
        Branches(0)
