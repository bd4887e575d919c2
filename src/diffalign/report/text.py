"""Text in pictures: fonts for any script, of those that are installed, and lines that fit.

Nothing is shipped: what no font has is drawn as a box, and stands in `report.html` all the same.
"""

import re
import unicodedata
import warnings
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findSystemFonts, fontManager
from matplotlib.ft2font import FT2Font

from diffalign.settings.choices import shortened

FONT, LAST_RESORT = "DejaVu Sans", "Last Resort High-Efficiency"  # both are matplotlib's
DPI, POINTS_PER_INCH = 100, 72
MEASURED = 400  # characters of a text that are looked at: no line has more
#: What joins emoji to one, which hides both from the fonts that have them.
JOINER = re.compile("(?<=[\\u2600-\\u27bf\\ufe0f\\U0001f000-\\U0001faff])\\u200d")


@lru_cache(maxsize=512)
def families(text: str) -> list[str]:
    """The fonts that draw `text`, for matplotlib: each character is of the first that has it."""
    ours = next(entry for entry in fontManager.ttflist if entry.name == FONT)
    missing = {c for c in text if unicodedata.category(c)[0] not in "CZ"} - _characters(ours.fname)
    found = [FONT]
    while missing:
        best = max(_installed(), key=lambda entry: len(missing & _characters(entry[1])), default=None)
        if best is None or not missing & _characters(best[1]):
            break
        found.append(best[0])
        missing -= _characters(best[1])
    return found


@cache
def _installed() -> list[tuple[str, str]]:
    """Names and files of upright fonts, those too that were installed since matplotlib last looked."""
    known = {entry.fname for entry in fontManager.ttflist}
    for file in set(findSystemFonts()) - known:
        with suppress(NotImplementedError, OSError, RuntimeError):  # bitmaps, or no font at all
            fontManager.addfont(file)
    return sorted(
        {
            (entry.name, entry.fname)
            for entry in fontManager.ttflist
            if entry.style == "normal" and entry.weight == 400 and entry.name != LAST_RESORT
        }
    )


@cache
def _characters(file: str) -> frozenset[str]:
    """What a font has; nothing if it cannot be read."""
    try:
        return frozenset(map(chr, FT2Font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@lru_cache(maxsize=512)
def fitted(text: str, width: float, pixels: float, lines: int = 1) -> list[str]:
    """`text` in at most so many lines of `width` pixels, in letters of `pixels`; what is left out is an …

    All are pixels at `DPI`.
    """
    rest, found = JOINER.sub("", shortened(text, MEASURED)), list[str]()
    while width_of(rest, pixels) > width:
        last = len(found) == lines - 1
        fits = bisect_right(range(1, len(rest)), width, key=lambda n: width_of(rest[:n] + "…" * last, pixels))
        word = rest.rfind(" ", 0, fits + 1)
        cut = max(1, fits if last or word < 1 else word)
        found.append(rest[:cut].rstrip() + "…" * last)
        if last:
            return found
        rest = rest[cut:].lstrip()
    return [*found, rest]


def width_of(text: str, pixels: float) -> float:
    """How wide `text` is in letters of `pixels`."""
    font = FontProperties(family=families(text), size=pixels * POINTS_PER_INCH / DPI)
    with no_glyph_warnings():
        return float(_renderer().get_text_width_height_descent(text, font, False)[0])


@cache
def _renderer() -> Any:
    canvas: Any = FigureCanvasAgg(Figure(dpi=DPI))
    return canvas.get_renderer()


@contextmanager
def no_glyph_warnings() -> Iterator[None]:
    """Within it a character that no font has is not complained of, once a draw."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from")
        warnings.filterwarnings("ignore", "Matplotlib currently does not support")  # before 3.11: scripts
        yield
