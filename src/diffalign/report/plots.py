"""The reward of every query with the checks of held-out prompts, and quality against cost."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray

from diffalign.report.figures import AFTER, BEST, INK, MUTED, RIGHT, RULE, WRONG, save
from diffalign.report.text import DPI, POINTS_PER_INCH, families, fitted

#: Of methods, in turn; as the lengths have no common divisor, no two of 72 methods look the same.
COLOURS, MARKERS = (MUTED, AFTER, BEST, RIGHT, WRONG, "#7a3fa0", INK, "#a0522d"), "osD^vP*X<"
LONGEST_MEAN = 32  # queries that the running mean spans at most; at first a fifth of all
FEW = 20  # queries up to which their points are drawn large
TAIL = 0.05  # share of rewards at either end; what is as far beyond the others as these are apart is far out
#: Of a check of held-out prompts: its key, the scale, and what it is called.
CHECKED = (("reward", 1, "{}"), ("judged", 100, "judged right, %"), ("distance", 1, "distance"))


def reward_curve(
    metrics: Sequence[Mapping[str, Any]],
    path: Path | str,
    *,
    baseline: float | None = None,
    reward: str = "reward",
    title: str = "",
) -> Path:
    """Draws the reward of every query, its running mean (from ten queries on) and the best so far; below them
    the checks of held-out prompts, if there were any.

    Of several prompts, each reward is less the median of its prompt's, if they came back: else the curve
    would show which prompts came when. A reward far from all others is drawn, and averaged, at the edge. Of a
    search by previews, the curve is theirs.

    Arguments:
        metrics: the lines of `metrics.jsonl`; of each, "queries" and "rewards", and of several prompts
            "prompts", a number for each reward.
        baseline: the frozen model's mean reward.
        reward: the reward's name, for the axis.

    Raises:
        ValueError: if no reward was queried, or the file's name ends in none of .png, .svg, .pdf.
    """
    previews = [line for line in metrics if line.get("previews")]
    lines = previews or metrics
    values = np.array([value for line in lines for value in line["rewards"]], dtype=np.float64)
    if not len(values):
        raise ValueError("there is no reward to draw")
    queries = np.concatenate([line["queries"] - np.arange(len(line["rewards"]))[::-1] for line in lines])
    several, named = all("prompts" in line for line in lines), reward
    if several and (centred := _centred(values, [line["prompts"] for line in lines])) is not None:
        values, named = centred, f"{reward}, less its prompt's median"
    checks = [line for line in metrics if line.get("held_out")]
    kinds = [kind for kind in CHECKED if all(line["held_out"][kind[0]] is not None for line in checks)]
    kinds = kinds if checks else []
    figure = Figure(layout="constrained", figsize=(9.0, 6.8 if kinds else 4.6), dpi=150)
    rows = figure.add_gridspec(1 + bool(kinds), max(1, len(kinds)), height_ratios=[2, 1][: 1 + bool(kinds)])
    axes = _axes(figure, rows[0, :])
    best = np.maximum.accumulate(values)
    values = _draw_rewards(axes, queries, values, "one preview" if previews else "one query")
    if len(values) > 1 and not several:
        axes.step(queries, best, where="post", color=BEST, linewidth=1.4, label="best so far")
    window = min(LONGEST_MEAN, len(values) // 5)
    if several:  # a round: fewer would be of some prompts
        window = min(len(values), max(len(line["rewards"]) for line in lines))
    if window > 1:
        sums = np.concatenate([[0.0], values.cumsum()])
        ends = np.arange(1, len(values) + 1)
        starts = np.maximum(0, ends - window)
        label = f"mean of the last {window} queries"
        running = (sums[ends] - sums[starts]) / (ends - starts)
        axes.plot(queries, running, color=AFTER, linewidth=2.2, label=label)
    if baseline is not None:
        axes.axhline(baseline, color=INK, linewidth=1.2, linestyle=(0, (5, 4)), label="frozen model, mean")
    beyond = 0.02 * (queries[-1] - queries[0]) or 1.0
    axes.set_xlim(queries[0] - beyond, queries[-1] + beyond)
    _name(axes, named, title)
    for column, (key, scale, name) in enumerate(kinds):
        panel = _axes(figure, rows[1, column])
        panel.plot(
            [line["queries"] for line in checks],
            [scale * line["held_out"][key] for line in checks],
            color=RIGHT,
            marker="o",
            markersize=4,
        )
        panel.set_xlim(axes.get_xlim())
        _name(panel, "", f"checks: {name.format(reward)}", size=9, width=210, ticks=5)
    axes.set_xlabel("reward queries (pictures scored)", color=INK)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, labelcolor=INK, fontsize=9)
    return save(figure, path)


def _draw_rewards(axes: Axes, queries: NDArray[Any], values: NDArray[Any], label: str) -> NDArray[Any]:
    """A point a reward; one far from all others at the edge, so that the others can be told apart. Returns
    the rewards as they are drawn."""
    low, high = np.quantile(values, [TAIL, 1 - TAIL])
    reach = (high - low) or np.inf
    near = (values >= low - reach) & (values <= high + reach)
    size = 14 if len(values) > FEW else 40
    axes.scatter(queries[near], values[near], s=size, color=AFTER, alpha=0.35, linewidths=0, label=label)
    if near.all():
        return values
    bottom, top = values[near].min(), values[near].max()
    margin = 0.05 * (top - bottom)
    axes.set_ylim(bottom - margin, top + margin)
    drawn, label = values.clip(bottom, top), f"{(~near).sum()} far out, drawn at the edge"
    for far, marker in ((values < bottom, "v"), (values > top, "^")):
        if far.any():
            axes.scatter(
                queries[far], drawn[far], s=30, marker=marker, color=WRONG, linewidths=0, label=label
            )
            label = "_"  # of both edges one stands in the legend
    return drawn


def _centred(values: NDArray[Any], rounds: Sequence[Sequence[int]]) -> NDArray[Any] | None:
    """Values less their prompts' medians; None where prompts came in fewer than two rounds on average, as
    then the medians hide what was learned."""
    prompts = np.concatenate([np.asarray(round, dtype=np.int64) for round in rounds])
    kinds, of = np.unique(prompts, return_inverse=True)
    if sum(len(set(round)) for round in rounds) < 2 * len(kinds):
        return None
    medians = np.array([np.median(values[of == kind]) for kind in range(len(kinds))])
    return np.asarray(values - medians[of])


def quality_against_cost(table: Mapping[str, Mapping[str, Any]], path: Path | str, *, reward: str) -> Path:
    """Draws the judged share of each method, or without a judge its reward, against its cost.

    The cost is the number of denoiser evaluations for a prompt, on a logarithmic scale. Beside the name of a
    method stands the mean pairwise distance of its pictures.

    Arguments:
        table: by method: `judged` and `reward` (mean, low, high), `distance`, `forwards`.
        reward: the name of the reward, for the axis.
    """
    figure = Figure(layout="constrained", figsize=(8, 5), dpi=DPI)
    axes = _axes(figure, 111)
    judged = all(row["judged"] for row in table.values())
    measure, scale = ("judged", 100) if judged else ("reward", 1)
    earlier: list[float] = []
    for (method, row), color, marker in zip(table.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        mean, low, high = (scale * row[measure][name] for name in ("mean", "low", "high"))
        # methods of nearly the same cost are drawn beside each other
        cost = row["forwards"] * 1.02 ** sum(0.9 < other / row["forwards"] < 1.1 for other in earlier)
        earlier.append(row["forwards"])
        spread = [[max(0, mean - low)], [max(0, high - mean)]]  # rounding may leave less
        distance = "–" if row["distance"] is None else f"{row['distance']:.3f}"
        label = f"{method}, {distance}"
        axes.errorbar(cost, mean, spread, fmt=marker, color=color, capsize=3, label=label)
    axes.legend(
        loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, title="method, distance of pictures"
    )
    axes.set_xscale("log")
    for axis in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        axis(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.8)))
    axes.margins(x=0.15)
    axes.set_xlabel("denoiser forwards a prompt, learning and search included", color=MUTED)
    axes.set_ylabel("judged right, %" if judged else reward, color=MUTED, parse_math=False)
    axes.set_title("Quality against cost, 95 % intervals", loc="left", color=INK)
    axes.grid(color=RULE, linewidth=0.8)
    return save(figure, path)


def _axes(figure: Figure, at: Any) -> Axes:
    """Axes of a figure, without a box around them."""
    axes = figure.add_subplot(at)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def _name(axes: Axes, label: str, title: str, size: float = 12, width: float = 800, ticks: int = 10) -> None:
    """Names the vertical axis, and the whole with a title of `size` points that `width` pixels have room for;
    queries are whole numbers."""
    (line,) = fitted(title, width, size * DPI / POINTS_PER_INCH)
    font: dict[str, Any] = {"color": INK, "parse_math": False}
    axes.set_title(line, loc="left", fontsize=size, fontfamily=families(line), **font)
    axes.set_ylabel(label, fontfamily=families(label), **font)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=MUTED)
