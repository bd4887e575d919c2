import numpy as np
import pytest

from diffalign.metrics import Interval, bootstrap, clustered, paired


def test_the_mean_is_exact_and_lies_within() -> None:
    interval = bootstrap([1.0, 2.0, 3.0, 6.0])
    assert interval.mean == 3.0
    assert interval.n == 4
    assert 1.0 <= interval.low < 3.0 < interval.high <= 6.0


def test_two_values_have_the_whole_range_as_interval() -> None:
    # of the means 0, 0.5 and 1, with probabilities 1/4, 1/2, 1/4, the middle 95 % reaches both ends
    assert bootstrap([0.0, 1.0]) == Interval(0.5, 0.0, 1.0, 2)
    # and the middle 40 % neither
    assert bootstrap([0.0, 1.0], level=0.4) == Interval(0.5, 0.5, 0.5, 2)


def test_one_value_and_equal_values_have_no_width() -> None:
    assert bootstrap([2.5]) == Interval(2.5, 2.5, 2.5, 1)
    assert bootstrap([True] * 7) == Interval(1.0, 1.0, 1.0, 7)


def test_as_dict() -> None:
    assert Interval(1.0, 0.5, 1.5, 9).as_dict() == {"mean": 1.0, "low": 0.5, "high": 1.5, "n": 9}


def test_width_is_that_of_the_normal_approximation() -> None:
    values = np.random.default_rng(0).normal(size=400)
    interval = bootstrap(values)
    expected = 2 * 1.96 * values.std() / 20
    assert interval.high - interval.low == pytest.approx(expected, rel=0.05)


def test_it_is_deterministic_and_the_seed_matters() -> None:
    values = np.random.default_rng(1).normal(size=30)
    assert bootstrap(values) == bootstrap(values.copy())
    assert bootstrap(values) != bootstrap(values, seed=1)


def test_many_values_are_drawn_in_parts() -> None:
    values = np.arange(30_000) % 2  # 66 resamples at a time
    interval = bootstrap(values, resamples=200)
    assert interval.mean == 0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 / 30_000**0.5, rel=0.25)


def test_coverage_of_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    intervals = [bootstrap(rng.normal(3.0, 2.0, 40), resamples=400) for _ in range(400)]
    assert 0.90 <= np.mean([it.low <= 3.0 <= it.high for it in intervals]) <= 0.97


def test_a_pair_is_compared_with_its_own_half() -> None:
    before = np.random.default_rng(3).normal(0, 100, 50)
    interval = paired(before + 1, before)
    assert interval.mean == pytest.approx(1.0)
    assert interval.high - interval.low < 1e-9


def test_clustered_covers_where_the_plain_bootstrap_does_not() -> None:
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(15), 20).tolist()
    covered = []
    for _ in range(100):
        values = np.repeat(rng.normal(0.0, 1.0, 15), 20) + rng.normal(0.0, 0.5, 300)
        covered.append(
            [it.low <= 0 <= it.high for it in (clustered(values, groups, resamples=300), bootstrap(values))]
        )
    with_groups, without = np.mean(covered, axis=0)
    assert with_groups >= 0.87
    assert without <= 0.6


def test_each_group_counts_the_same_whatever_its_size() -> None:
    interval = clustered([1.0, 0.0, 0.0, 0.0], ["a", "b", "b", "b"])
    # the means of two groups drawn: 0, 0.5 or 1; nothing varies within a group
    assert interval == Interval(0.5, 0.0, 1.0, 4)


def test_values_within_a_group_are_drawn_anew() -> None:
    # one group: what varies is within it, so this is the plain bootstrap's range
    assert clustered([0.0, 1.0], [("a", 0), ("a", 0)]) == Interval(0.5, 0.0, 1.0, 2)


def test_clustered_is_deterministic() -> None:
    values, groups = np.random.default_rng(5).normal(size=24), [f"{i % 5}" for i in range(24)]
    assert clustered(values, groups) == clustered(values, groups)
    assert clustered(values, groups) != clustered(values, groups, seed=1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap([]), "at least 1"),
        (lambda: bootstrap([[1.0]]), r"\(1, 1\)"),
        (lambda: bootstrap([1.0, float("nan")]), "value 1 of 2 is not finite"),
        (lambda: bootstrap([1.0], level=1.0), "level"),
        (lambda: bootstrap([1.0], resamples=0), "resamples"),
        (lambda: paired([1.0, 2.0], [1.0]), "same shape"),
        (lambda: clustered([1.0, 2.0], ["a"]), "2 values and 1 labels"),
    ],
)
def test_bad_input(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
