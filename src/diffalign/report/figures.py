"""Colours of all figures, and how they become files, without pyplot's global state or a display."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffalign.files import replacing
from diffalign.report.text import no_glyph_warnings

INK, MUTED, RULE = "#1c2430", "#667085", "#d5dae1"
AFTER, BEST = "#2563c9", "#c26a12"
RIGHT, WRONG = "#1a7f4b", "#c0392b"
#: What says when a file was made is left out, so that the same figure is the same file.
METADATA: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": "diffalign"},
    "svg": {"Creator": "diffalign", "Date": None},
    "pdf": {"Creator": "diffalign", "CreationDate": None},
}
RC: Final = {"svg.hashsalt": "diffalign", "pdf.fonttype": 42}  # outlines that a publisher's checks take


def save(figure: Figure, path: Path | str) -> Path:
    """Writes a figure, whole or not at all, in the format of the file's name, and returns its path.

    Raises:
        ValueError: if the name ends in none of .png, .svg, .pdf.
    """
    path = Path(path)
    kind = path.suffix.removeprefix(".").lower()
    if kind not in METADATA:
        raise ValueError(f"a figure is written as .png, .svg or .pdf, not as {path.name!r}")
    FigureCanvasAgg(figure)
    with replacing(path) as file, rc_context(RC), no_glyph_warnings():  # type: ignore[arg-type]
        figure.savefig(file, format=kind, metadata=METADATA[kind])
    return path


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """A figure as `(H, W, 3)`."""
    canvas: Any = FigureCanvasAgg(figure)
    with no_glyph_warnings():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
