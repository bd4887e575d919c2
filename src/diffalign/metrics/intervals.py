"""Means with percentile bootstrap intervals, and a test of pairs.

Resample the values with replacement, R times; the interval spans the middle `level` of the R means.
All resampling is seeded: the same values give the same interval.

The bootstrap knows no more than its values. If all are equal the interval has no width, although 0
successes of n still allow a rate of about 3/n; below some ten values it is too narrow.

References: Efron and Tibshirani (1993), "An introduction to the bootstrap", chapter 13;
            Davison and Hinkley (1997), "Bootstrap methods", section 3.8 (groups)
            Fisher (1935), "The design of experiments", section 21 (the test)
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

LEVEL = 0.95  # of confidence, the usual one
RESAMPLES = 4000  # with which the ends of an interval vary by about a hundredth of its width
PERMUTATIONS = 9999  # which resolve p down to 0.0001
_INDICES = 2_000_000  # drawn at a time: 16 MB


class IntervalDict(TypedDict):
    """An `Interval` as JSON holds it."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Interval:
    """The mean of `n` values, and its confidence interval from `low` to `high`."""

    mean: float
    low: float
    high: float
    n: int

    def as_dict(self) -> IntervalDict:
        """As `summary.json` holds it."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def bootstrap(
    values: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of independent `values` with shape `(n,)`, numbers or bool.

    Arguments:
        level: of confidence, in (0, 1).
        resamples: R, the number of resamples.

    Raises:
        ValueError: if there is no value, or one is not finite, or an argument is out of range.
    """
    array = checked(values, level, resamples)
    rng = np.random.default_rng(seed)
    at_once = max(1, _INDICES // len(array))
    means = [
        array[rng.integers(len(array), size=(min(at_once, resamples - done), len(array)))].mean(1)
        for done in range(0, resamples, at_once)
    ]
    return _interval(array.mean(), np.concatenate(means), level, len(array))


def paired(
    after: ArrayLike, before: ArrayLike, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of `after - before`, both with shape `(n,)`; values of one index share their initial noise.

    Raises:
        ValueError: if the shapes differ, or as `bootstrap` does.
    """
    a, b = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"pairs need the same shape before and after, not {b.shape} and {a.shape}")
    return bootstrap(a - b, level=level, resamples=resamples, seed=seed)


def paired_test(
    after: ArrayLike, before: ArrayLike, *, resamples: int = PERMUTATIONS, seed: int = 0
) -> float:
    """The p-value of the mean of `after - before`, both `(n,)`, if before and after were exchangeable.

    A two-sided permutation test of pairs, exact if they can be swapped in fewer ways than `resamples`.

    Raises:
        ValueError: as `paired` does.
    """
    from scipy.stats import permutation_test

    a, b = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if paired(a, b, resamples=1).n == 1:  # after its checks
        return 1.0  # both orders are equally likely
    test = permutation_test(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, _INDICES // len(a)),
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def clustered(
    values: ArrayLike,
    groups: Sequence[Hashable],
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The mean of the groups' means, for `values` with shape `(n,)` that are alike within a group.

    Draws groups with replacement, then values within each drawn group, so that the interval generalises to
    new groups, such as other prompts or training seeds. All groups have the same weight, whatever their
    size. Slightly too wide when groups are small, as the means of groups carry the values' noise too.

    Arguments:
        groups: the labels of the values' groups, n, such as (prompt, seed).

    Raises:
        ValueError: if there are not n labels, or as `bootstrap` does.
    """
    array = checked(values, level, resamples)
    if len(groups) != len(array):
        raise ValueError(
            f"each value needs a group, but there are {len(array)} values and {len(groups)} labels"
        )
    members: dict[Hashable, list[float]] = {}
    for label, value in zip(groups, array.tolist(), strict=True):
        members.setdefault(label, []).append(value)
    sizes = np.array([len(member) for member in members.values()])
    padded = np.array([*zip_longest(*members.values(), fillvalue=0.0)]).T.copy()
    rng = np.random.default_rng(seed)
    means = np.zeros(resamples)
    for _ in range(len(members)):
        drawn = rng.integers(len(members), size=resamples)
        size = sizes[drawn, None]
        within = (rng.random((resamples, padded.shape[1])) * size).astype(np.intp)
        counted = np.arange(padded.shape[1]) < size
        means += (padded[drawn[:, None], within] * counted).sum(1) / size[:, 0]
    return _interval((padded.sum(1) / sizes).mean(), means / len(members), level, len(array))


def checked(values: ArrayLike, level: float = LEVEL, resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """The values `(n,)` and arguments of an interval; a ValueError says which of them will not do."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"an interval needs values with shape (n,), n at least 1, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"value {int(np.flatnonzero(~np.isfinite(array))[0])} of {len(array)} is not finite")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must be in (0, 1) and resamples positive, not {level} and {resamples}")
    return array


def _interval(mean: float, means: NDArray[np.float64], level: float, n: int) -> Interval:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(mean), float(low), float(high), n)
