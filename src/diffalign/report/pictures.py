"""Pictures before and after, and a grid of pictures, as PNG files, or as PDF or SVG for papers."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from diffalign.report.figures import INK, MUTED, RIGHT, WRONG, pixels, save
from diffalign.report.text import DPI, POINTS_PER_INCH, families, fitted, width_of
from diffalign.report.video import write_animation
from diffalign.rollout import as_bytes

SMALLEST, LARGEST = 128, 256  # side of a picture as shown, in pixels
#: In pixels; lines of verdicts and captions are below pictures.
GAP, FRAME, MARGIN, TITLE, LINE = 8, 4, 20, 44, 17
LETTERS, SMALL = 15, 11  # of titles and captions, in pixels
CAPTION_LINES = 2
LEAST_WIDTH = 420  # of a figure, in pixels, so that its titles fit

Verdicts = Tensor | Sequence[bool]


class Block(NamedTuple):
    """Pictures with a title, and perhaps verdicts and captions, one each."""

    images: Tensor
    title: str
    verdicts: Verdicts | None
    captions: Sequence[str]


def grid(
    images: Tensor,
    path: Path | str,
    *,
    columns: int = 8,
    title: str = "",
    verdicts: Verdicts | None = None,
    captions: Sequence[str] = (),
) -> Path:
    """Draws pictures `(n, 3, H, W)`, float in [0, 1] or uint8, or video `(n, F, 3, H, W)`; returns `path`.

    Of video the PNG is animated, as browsers play it.

    Arguments:
        columns: pictures side by side, at most.
        verdicts: `(n,)`; each picture gets a green frame and a tick, or a red frame and a cross.
        captions: `n` texts that stand below the pictures, such as their prompts; or none.

    Raises:
        ValueError: if there is no picture or no column, or if there are not n verdicts or captions.
    """
    return _draw([Block(images, title, verdicts, captions)], path, columns)


def before_after(
    before: Tensor,
    after: Tensor,
    path: Path | str,
    *,
    columns: int = 8,
    titles: tuple[str, str] = ("Before: the frozen model", "After learning, from the same seeds"),
    verdicts: tuple[Verdicts, Verdicts] | None = None,
    captions: Sequence[str] = (),
) -> Path:
    """Draws two blocks of pictures `(n, 3, H, W)` or video, one above the other, made with the same noise.

    Arguments:
        columns: pictures side by side, at most.
        verdicts: the judge's, `(n,)` for each block.
        captions: `n` texts, of the pairs.

    Raises:
        ValueError: if the blocks differ in n, or as `grid` does.
    """
    if len(before) != len(after):
        raise ValueError(f"pairs are shown: not {len(before)} pictures before and {len(after)} after")
    first, second = verdicts or (None, None)
    blocks = [Block(before, titles[0], first, captions), Block(after, titles[1], second, captions)]
    return _draw(blocks, path, columns)


def _draw(blocks: Sequence[Block], path: Path | str, columns: int) -> Path:
    """Draws blocks of pictures, or of videos frame by frame, below each other."""
    images = blocks[0].images
    if images.ndim < 5:
        return save(_figure(blocks, columns), path)
    frames = [
        pixels(_figure([block._replace(images=block.images[:, i]) for block in blocks], columns))
        for i in range(images.shape[1])
    ]
    return write_animation(frames, Path(path))


def _figure(blocks: Sequence[Block], columns: int) -> Figure:
    """Blocks of pictures below each other; pixels of pictures are whole pixels of the figure."""
    if any(len(block.images) == 0 for block in blocks) or columns < 1:
        raise ValueError("need at least one picture and one column")
    tiles = [_tiles(block.images) for block in blocks]
    height, width = tiles[0].shape[1:3]
    columns = min(columns, max(len(tile) for tile in tiles))
    across = width + 2 * FRAME + GAP
    room = LINE * max(_lines_below(block, width) for block in blocks)
    down = height + 2 * FRAME + room + GAP
    rows = [-(-len(tile) // columns) for tile in tiles]
    heads = [TITLE if block.title else 0 for block in blocks]
    total_width = max(2 * MARGIN + columns * across - GAP, LEAST_WIDTH)
    total_height = sum(rows) * down + sum(heads) + 2 * MARGIN - GAP + (len(blocks) - 1) * GAP
    paper = np.full((total_height, total_width, 3), 255, np.uint8)
    figure = Figure(figsize=(total_width / DPI, total_height / DPI), dpi=DPI)

    def write(x: float, y: float, text: str, size: float, color: str) -> None:
        """Writes at a pixel of `paper`, counted from the top left."""
        at, points = (x / total_width, 1 - y / total_height), size * POINTS_PER_INCH / DPI
        figure.text(
            *at,
            text,
            color=color,
            ha="left",
            va="center",
            fontsize=points,
            fontfamily=families(text),
            parse_math=False,
        )

    y = MARGIN
    for (_, title, verdicts, captions), tile, row_count, head in zip(blocks, tiles, rows, heads, strict=True):
        passed = None if verdicts is None else [bool(verdict) for verdict in verdicts]
        for given, kind in ((passed, "verdicts"), (captions or None, "captions")):
            if given is not None and len(given) != len(tile):
                raise ValueError(f"{len(tile)} pictures, but {len(given)} {kind}")
        if title:
            count = "" if passed is None else f"{sum(passed)} of {len(passed)} right"
            beside = width_of(count, LETTERS) + MARGIN
            (line,) = fitted(title, total_width - 2 * MARGIN - beside, LETTERS)
            write(MARGIN, y + head / 2 - 6, line, LETTERS, INK)
            write(2 * MARGIN + width_of(line, LETTERS), y + head / 2 - 6, count, LETTERS, INK)
        for i, picture in enumerate(tile):
            x0, y0 = MARGIN + i % columns * across, y + head + i // columns * down
            framed = paper[y0 : y0 + height + 2 * FRAME, x0 : x0 + width + 2 * FRAME]
            x, below = x0, y0 + height + 2 * FRAME + LINE / 2 + 1
            if passed is not None:
                mark, colour = ("✓", RIGHT) if passed[i] else ("✗", WRONG)
                framed[:] = _rgb(colour)
                write(x0, below, mark, SMALL + 2, colour)
                x += LINE
            framed[FRAME:-FRAME, FRAME:-FRAME] = picture
            if captions:
                lines = fitted(captions[i], width + 2 * FRAME - (x - x0), SMALL, CAPTION_LINES)
                for number, line in enumerate(lines):
                    write(x, below + number * LINE, line, SMALL, MUTED)
        y += head + row_count * down + GAP
    axes = figure.add_axes((0, 0, 1, 1), zorder=-1)
    axes.imshow(paper, aspect="auto", interpolation="none")
    axes.set_axis_off()
    return figure


def _lines_below(block: Block, width: int) -> int:
    """How many lines the verdicts and captions take below a picture."""
    captions = [fitted(text, width + 2 * FRAME - LINE, SMALL, CAPTION_LINES) for text in block.captions]
    return max([*map(len, captions), int(block.verdicts is not None)])


def _tiles(images: Tensor) -> NDArray[np.uint8]:
    """Pictures `(n, H, W, 3)`, scaled by a whole number so that they have about 128 to 256 pixels a side."""
    side = max(images.shape[2:])
    step, factor = -(-side // LARGEST), -(-SMALLEST // side)
    tiles = F.avg_pool2d(as_bytes(images).float(), step).round().to(torch.uint8)
    return tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3).permute(0, 2, 3, 1).numpy()


def _rgb(color: str) -> NDArray[np.uint8]:
    """The channels `(3,)` of #rrggbb."""
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)
