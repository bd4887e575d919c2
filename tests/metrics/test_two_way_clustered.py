"""Intervals of values that are alike in two ways at once."""

import numpy as np
import pytest
from scipy import stats

from diffalign.metrics.two_way_clustered import student_t, two_way_clustered


@pytest.mark.parametrize("dof", [1, 2, 3, 5, 10, 100])
@pytest.mark.parametrize("p", [0.95, 0.975, 0.99])
def test_quantiles_are_scipys(dof: int, p: float) -> None:
    assert student_t(p, dof) == pytest.approx(stats.t.ppf(p, dof), rel=0.01 if dof < 10 else 1e-4)


def test_by_hand() -> None:
    # means of rows -1 and 1, of columns -2 and 2, about 0; nothing else differs
    values, rows, columns = [-3.0, 1.0, -1.0, 3.0], [0, 0, 1, 1], [0, 1, 0, 1]
    of_rows, of_columns = 2 * (2**2 + 2**2) / 16, 2 * (4**2 + 4**2) / 16
    of_cells = 4 / 3 * (9 + 1 + 1 + 9) / 16
    found = two_way_clustered(values, rows, columns)
    half = stats.t.ppf(0.975, 1) * max(of_rows + of_columns - of_cells, of_columns) ** 0.5
    assert (found.mean, found.n) == (0, 4)
    assert found.high == pytest.approx(half) and found.low == pytest.approx(-half)


def test_votes_that_differ_have_a_width() -> None:
    # every row and every column has the mean ½
    found = two_way_clustered([1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1], [0, 1, 1, 0])
    half = stats.t.ppf(0.975, 1) * (4 / 3 * 4 * 0.25 / 16) ** 0.5
    assert found.high - found.low == pytest.approx(2 * half)


def test_one_row_leaves_the_columns() -> None:
    values = [1.0, 2.0, 3.0, 6.0]
    found = two_way_clustered(values, [0] * 4, range(4))
    expected = stats.t.interval(0.95, 3, loc=3, scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=0.01, abs=0.01)
    alone = two_way_clustered([4.0, 5.0], ["a", "a"], ["b", "b"])
    assert (alone.low, alone.mean, alone.high) == (4.5, 4.5, 4.5)
    same = two_way_clustered([2.0] * 6, [0, 0, 0, 1, 1, 1], [0, 1, 2] * 2)
    assert (same.low, same.high) == (2, 2)


@pytest.mark.parametrize(("voters", "prompts"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)])
def test_it_covers_the_truth_about_as_often_as_it_says(voters: float, prompts: float) -> None:
    random, covered, turns = np.random.default_rng(0), 0, 400
    rows, columns = np.repeat(np.arange(12), 10), np.tile(np.arange(10), 12)
    for _ in range(turns):
        effects = voters * random.normal(size=12)[rows] + prompts * random.normal(size=10)[columns]
        found = two_way_clustered(effects + random.normal(size=120), rows.tolist(), columns.tolist())
        covered += found.low <= 0 <= found.high
    assert 0.91 <= covered / turns <= 1.0


def test_what_is_no_table_is_refused() -> None:
    for values, rows in (([], []), ([1.0, float("nan")], [0, 1]), ([1.0], [0, 1])):
        with pytest.raises(ValueError):
            two_way_clustered(values, rows, rows)
