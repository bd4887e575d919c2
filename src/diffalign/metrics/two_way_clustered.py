r"""The mean of values that are alike in two ways at once, such as votes: of a voter, and on a prompt.

    se² = V_rows + V_columns − V_cells,    V_g = G/(G − 1) · Σ_g (Σ_{i ∈ g} (x_i − x̄))² / n²

and the interval is x̄ ± t · se, t of the smaller G − 1 degrees of freedom. It stands for rows and columns that
were not seen. A way with one group alone says nothing of others, and is left out.

Symbols:    x = values, n = their number, g = a group of rows, of columns, or of both, G = how many groups
References: Cameron, Gelbach and Miller (2011), section 2, https://doi.org/10.1198/jbes.2010.07136
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffalign.metrics.intervals import Interval


def two_way_clustered(
    values: ArrayLike, rows: Sequence[Hashable], columns: Sequence[Hashable], *, level: float = 0.95
) -> Interval:
    """The mean of `values` with shape `(n,)`, each of a row and a column.

    Raises:
        ValueError: if there is no value, one that is not finite, or not one row and column a value.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array) or not np.isfinite(array).all():
        raise ValueError(f"an interval needs finite values with shape (n,), n at least 1, not {array.shape}")
    if not len(rows) == len(columns) == len(array):
        raise ValueError(f"{len(array)} values need as many rows and columns")
    mean = float(array.mean())
    rest = array - mean
    ways = {"rows": rows, "columns": columns, "cells": list(zip(rows, columns, strict=True))}
    found = {name: _variance(rest, labels) for name, labels in ways.items()}
    known = {name: found[name] for name in ("rows", "columns") if found[name][1] > 1}
    if len(known) == 2:
        # the difference may fall below each of the three where there is next to no likeness
        variances = [variance for variance, _ in known.values()]
        variance = max(sum(variances) - found["cells"][0], *variances, found["cells"][0])
    else:
        variance = max((variance for variance, _ in known.values()), default=0.0)
    groups = min((count for _, count in known.values()), default=1)
    half = student_t((1 + level) / 2, groups - 1) * math.sqrt(variance) if variance > 0 else 0.0
    return Interval(mean, mean - half, mean + half, len(array))


def _variance(rest: NDArray[np.float64], labels: Sequence[Hashable]) -> tuple[float, int]:
    """V of groups with these labels, and how many there are."""
    sums: dict[Hashable, float] = {}
    for label, value in zip(labels, rest.tolist(), strict=True):
        sums[label] = sums.get(label, 0.0) + value
    count = len(sums)
    total = sum(value**2 for value in sums.values()) / len(rest) ** 2
    return (total * count / (count - 1) if count > 1 else 0.0), count


def student_t(p: float, dof: int) -> float:
    """The quantile of Student's t at 0.95 ≤ p ≤ 0.99: exact for 1 and 2 degrees of freedom, else within 1 %.

    References: Abramowitz and Stegun (1964), 26.7.5
    """
    if dof == 1:
        return math.tan(math.pi * (p - 0.5))
    if dof == 2:
        return (2 * p - 1) / math.sqrt(2 * p * (1 - p))
    z = NormalDist().inv_cdf(p)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / dof**power for power, term in enumerate(terms))
