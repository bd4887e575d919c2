"""Pictures before and after, a grid of pictures, and the reward of every query, as PNG files.

Each figure has a separate canvas: nothing uses pyplot's global state or needs a display.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator
from numpy.typing import NDArray
from torch import Tensor

from diffalign.files import replacing
from diffalign.report.video import write_animation
from diffalign.rollout import as_bytes

INK, MUTED, RULE = "#1c2430", "#667085", "#d5dae1"
BEFORE, AFTER, BEST = "#8b95a5", "#2563c9", "#c26a12"
RIGHT, WRONG = "#1a7f4b", "#c0392b"
COLOURS, MARKERS = (MUTED, BEFORE, AFTER, BEST, RIGHT, WRONG, INK), "osD^vP*"  # of methods, in turn
DPI = 100
SMALLEST, LARGEST = 128, 256  # side of a picture as shown, in pixels
GAP, FRAME, MARGIN, TITLE, BADGE = 8, 4, 20, 44, 18  # in pixels; the badge holds tick or cross
LEAST_WIDTH = 420  # of a figure, in pixels, so that its titles fit
POINTS_PER_INCH = 72
LONGEST_MEAN = 32  # queries that the running mean spans at most; at first a fifth of all
FEW = 20  # queries up to which their points are drawn large

Verdicts = Tensor | Sequence[bool]


def grid(
    images: Tensor, path: Path | str, *, columns: int = 8, title: str = "", verdicts: Verdicts | None = None
) -> Path:
    """Draws pictures `(n, 3, H, W)`, float in [0, 1] or uint8, or video `(n, F, 3, H, W)`; returns `path`.

    Of video the PNG is animated, as browsers play it.

    Arguments:
        columns: pictures side by side, at most.
        verdicts: `(n,)`; each picture gets a green frame and a tick, or a red frame and a cross.

    Raises:
        ValueError: if there is no picture or no column, or if there are not n verdicts.
    """
    return _draw([(images, title, verdicts)], path, columns)


def before_after(
    before: Tensor,
    after: Tensor,
    path: Path | str,
    *,
    columns: int = 8,
    titles: tuple[str, str] = ("Before: the frozen model", "After: the same noise, tuned"),
    verdicts: tuple[Verdicts, Verdicts] | None = None,
) -> Path:
    """Draws two blocks of pictures `(n, 3, H, W)` or video, one above the other, made with the same noise.

    Arguments:
        columns: pictures side by side, at most.
        verdicts: the judge's, `(n,)` for each block.

    Raises:
        ValueError: if the blocks differ in n, or as `grid` does.
    """
    if len(before) != len(after):
        raise ValueError(f"pairs are shown: not {len(before)} pictures before and {len(after)} after")
    first, second = verdicts or (None, None)
    return _draw([(before, titles[0], first), (after, titles[1], second)], path, columns)


def reward_curve(
    metrics: Sequence[Mapping[str, Any]],
    path: Path | str,
    *,
    baseline: float | None = None,
    reward: str = "reward",
    title: str = "",
) -> Path:
    """Draws the reward of every query, its running mean (from ten queries on) and the best so far.

    Arguments:
        metrics: the lines of `metrics.jsonl`; of each, "queries" and "rewards".
        baseline: the frozen model's mean reward.
        reward: the reward's name, for the axis.

    Raises:
        ValueError: if no reward was queried.
    """
    values = np.array([value for line in metrics for value in line["rewards"]], dtype=np.float64)
    if not len(values):
        raise ValueError("there is no reward to draw")
    queries = np.concatenate([line["queries"] - np.arange(len(line["rewards"]))[::-1] for line in metrics])
    figure, axes = _axes(figsize=(9.0, 4.6), dpi=150)
    size = 14 if len(values) > FEW else 40
    axes.scatter(queries, values, s=size, color=AFTER, alpha=0.35, linewidths=0, label="one query")
    if len(values) > 1:
        best = np.maximum.accumulate(values)
        axes.step(queries, best, where="post", color=BEST, linewidth=1.4, label="best so far")
    window = min(LONGEST_MEAN, len(values) // 5)
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
    axes.set_xlabel("reward queries (pictures scored)", color=INK)
    axes.set_ylabel(reward, color=INK, parse_math=False)
    axes.set_title(title, loc="left", color=INK, fontsize=12, parse_math=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=MUTED)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, labelcolor=INK, fontsize=10)
    return _save(figure, path)


def quality_against_cost(table: Mapping[str, Mapping[str, Any]], path: Path | str, *, reward: str) -> Path:
    """Draws the judged share of each method, or without a judge its reward, against its cost.

    The cost is the number of denoiser evaluations for a prompt, on a logarithmic scale. Beside the name of a
    method stands the mean pairwise distance of its pictures.

    Arguments:
        table: by method: `judged` and `reward` (mean, low, high), `distance`, `forwards`.
        reward: the name of the reward, for the axis.
    """
    figure, axes = _axes(figsize=(8, 5), dpi=DPI)
    judged = all(row["judged"] for row in table.values())
    measure, scale = ("judged", 100) if judged else ("reward", 1)
    earlier: list[float] = []
    for (method, row), color, marker in zip(table.items(), cycle(COLOURS), cycle(MARKERS), strict=False):
        mean, low, high = (scale * row[measure][name] for name in ("mean", "low", "high"))
        # methods of nearly the same cost are drawn beside each other
        cost = row["forwards"] * 1.06 ** sum(0.9 < other / row["forwards"] < 1.1 for other in earlier)
        earlier.append(row["forwards"])
        spread = [[mean - low], [high - mean]]
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
    axes.set_ylabel("judged right, %" if judged else reward, color=MUTED)
    axes.set_title("Quality against cost, 95 % intervals", loc="left", color=INK)
    axes.grid(color=RULE, linewidth=0.8)
    return _save(figure, path)


Block = tuple[Tensor, str, Verdicts | None]


def _draw(blocks: Sequence[Block], path: Path | str, columns: int) -> Path:
    """Draws blocks of pictures, or of videos frame by frame, below each other."""
    images = blocks[0][0]
    if images.ndim < 5:
        return _save(_figure(blocks, columns), path)
    frames = []
    for i in range(images.shape[1]):
        canvas: Any = FigureCanvasAgg(_figure([(video[:, i], *rest) for video, *rest in blocks], columns))
        canvas.draw()
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return write_animation(frames, Path(path))


def _figure(blocks: Sequence[Any], columns: int) -> Figure:
    """Blocks of pictures below each other; pixels of pictures are whole pixels of the figure."""
    if any(len(images) == 0 for images, _, _ in blocks) or columns < 1:
        raise ValueError("need at least one picture and one column")
    tiles = [_tiles(images) for images, _, _ in blocks]
    height, width = tiles[0].shape[1:3]
    columns = min(columns, max(len(tile) for tile in tiles))
    across, down = width + 2 * FRAME + GAP, height + 2 * FRAME + GAP
    rows = [-(-len(tile) // columns) for tile in tiles]
    heads = [TITLE if title else 0 for _, title, _ in blocks]
    total_width = max(2 * MARGIN + columns * across - GAP, LEAST_WIDTH)
    total_height = sum(rows) * down + sum(heads) + 2 * MARGIN - GAP + (len(blocks) - 1) * GAP
    paper = np.full((total_height, total_width, 3), 255, np.uint8)
    figure = Figure(figsize=(total_width / DPI, total_height / DPI), dpi=DPI)

    def write(x: float, y: float, text: str, pixels: float, color: str, ha: str) -> None:
        """Writes at a pixel of `paper`, counted from the top left."""
        at, size = (x / total_width, 1 - y / total_height), pixels * POINTS_PER_INCH / DPI
        figure.text(*at, text, fontsize=size, color=color, ha=ha, va="center", parse_math=False)

    y = MARGIN
    for (_, title, verdicts), tile, row_count, head in zip(blocks, tiles, rows, heads, strict=True):
        passed = None if verdicts is None else [bool(verdict) for verdict in verdicts]
        if passed is not None and len(passed) != len(tile):
            raise ValueError(f"{len(tile)} pictures, but {len(passed)} verdicts")
        if title:
            count = "" if passed is None else f"   {sum(passed)} of {len(passed)} right"
            write(MARGIN, y + head / 2 - 6, title + count, 15, INK, "left")
        for i, picture in enumerate(tile):
            x0, y0 = MARGIN + i % columns * across, y + head + i // columns * down
            x1, y1 = x0 + FRAME, y0 + FRAME
            framed = paper[y0 : y1 + height + FRAME, x0 : x1 + width + FRAME]
            inner = framed[FRAME:-FRAME, FRAME:-FRAME]
            if passed is not None:
                mark, colour = ("✓", _rgb(RIGHT)) if passed[i] else ("✗", _rgb(WRONG))
                framed[:] = colour
            inner[:] = picture
            if passed is not None:
                inner[:BADGE, -BADGE:] = colour
                write(x1 + width - 8, y1 + 8, mark, 11, "white", "center")
        y += head + row_count * down + GAP
    figure.figimage(paper, zorder=-1)
    return figure


def _tiles(images: Tensor) -> NDArray[np.uint8]:
    """Pictures `(n, H, W, 3)`, scaled by a whole number so that they have about 128 to 256 pixels a side."""
    side = max(images.shape[2:])
    step, factor = -(-side // LARGEST), -(-SMALLEST // side)
    tiles = F.avg_pool2d(as_bytes(images).float(), step).round().to(torch.uint8)
    return tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3).permute(0, 2, 3, 1).numpy()


def _axes(**size: Any) -> tuple[Figure, Axes]:
    """A figure and its axes, without a box around them."""
    figure = Figure(layout="constrained", **size)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _rgb(color: str) -> NDArray[np.uint8]:
    """The channels `(3,)` of #rrggbb."""
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)


def _save(figure: Figure, path: Path | str) -> Path:
    """Writes the PNG, whole or not at all, and returns its path."""
    FigureCanvasAgg(figure)
    with replacing(Path(path)) as file:
        figure.savefig(file, format="png", metadata={"Software": "diffalign"})
    return Path(path)
