r"""The mean of values that are correlated in two ways, such as votes: within a voter, and within a prompt.

    se² = V_rows + V_columns − V_cells,    V_g = G/(G − 1) · Σ_g (Σ_{i ∈ g} (x_i − x̄))² / n²

and the interval is x̄ ± t · se, where t has the smaller G − 1 degrees of freedom. It generalises to new rows
and columns, such as other voters and prompts. A way with a single group tells nothing of others, and is left
out.

Symbols:    x = values, n = their number, g = a group of rows, of columns, or of both, G = how many groups
References: Cameron, Gelbach and Miller (2011), section 2, https://doi.org/10.1198/jbes.2010.07136
"""

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diffalign.metrics.intervals import LEVEL, Interval, checked


def two_way_clustered(
    values: ArrayLike, rows: Sequence[Hashable], columns: Sequence[Hashable], *, level: float = LEVEL
) -> Interval:
    """The mean of `values` with shape `(n,)`; value i belongs to group `rows[i]` and to `columns[i]`.

    Arguments:
        rows, columns: labels of the groups, n each.
        level: of confidence, in (0, 1).

    Raises:
        ValueError: if there is no value, if one is not finite, or if there are not n labels.
    """
    array = checked(values, level)
    if not len(rows) == len(columns) == len(array):
        raise ValueError(f"{len(array)} values need as many rows and columns")
    mean = float(array.mean())
    residuals = array - mean
    of_cells, _ = _variance(residuals, list(zip(rows, columns, strict=True)))
    ways = [_variance(residuals, labels) for labels in (rows, columns) if len(set(labels)) > 1]
    variances = [variance for variance, _ in ways]
    if len(ways) == 2:
        # the difference may fall below each of the three if there is next to no correlation
        variance = max(sum(variances) - of_cells, *variances, of_cells)
    else:
        variance = max(variances, default=0.0)
    groups = min((count for _, count in ways), default=1)
    half = student_t((1 + level) / 2, groups - 1) * math.sqrt(variance) if variance > 0 else 0.0
    return Interval(mean, mean - half, mean + half, len(array))


def _variance(residuals: NDArray[np.float64], labels: Sequence[Hashable]) -> tuple[float, int]:
    """V_g, and G, of the groups with these labels."""
    sums: dict[Hashable, float] = {}
    for label, value in zip(labels, residuals.tolist(), strict=True):
        sums[label] = sums.get(label, 0.0) + value
    count = len(sums)
    total = sum(value**2 for value in sums.values()) / len(residuals) ** 2
    return (total * count / (count - 1) if count > 1 else 0.0), count


def student_t(p: float, dof: int) -> float:
    """Student's t quantile for 0.95 ≤ p ≤ 0.99: exact with 1 and 2 degrees of freedom, else within 1 %.

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
    total: float = sum(term / dof**power for power, term in enumerate(terms))
    return total
