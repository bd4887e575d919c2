"""Names and places of the folders that commands write."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffalign.artifacts import CONFIG, REPORT, SUMMARY, RunFolder
from diffalign.policies.noise import ArtifactError

RUNS = Path("runs")
PICTURES = "pictures"  # in a run's folder, of `generate`
_LONGEST = 60


def slug(text: str) -> str:
    """A name for a file: lower-case words joined by dashes; what is cut off is told apart by a hash."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-_")
    if words and len(words) <= _LONGEST:
        return words
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{words[:_LONGEST]}-{digest}".lstrip("-")


def claim(path: Path, overwrite: bool) -> None:
    """Checks that a run may be written to `path`, before anything slow is done.

    Raises:
        ArtifactError: if not; what it says is what `RunFolder.create` says.
    """
    used = path.exists() and not (path.is_dir() and not any(path.iterdir()))
    if used and not (overwrite and (path / CONFIG).is_file()):
        RunFolder.create(path, {}, overwrite=overwrite)


def begun(path: Path) -> list[Path]:
    """The folders of the runs at `path`: itself, or those of several prompts in it.

    Raises:
        ArtifactError: if there is none.
    """
    if not (path / CONFIG).is_file() and path.is_dir():
        inside = sorted(file.parent for file in path.glob(f"*/{CONFIG}"))
        if inside:
            return inside
    return [RunFolder.resume(path).path]


def finished(path: Path) -> bool:
    """Whether a run is complete; its report is written last."""
    return (path / SUMMARY).is_file() and (path / REPORT).is_file()


@contextmanager
def resumable(path: Path) -> Iterator[None]:
    """Adds to whatever stops a run, Ctrl-C included, how to go on with it."""
    try:
        yield
    except BaseException as error:
        saved = "" if isinstance(error, ArtifactError) else "state saved, "
        error.add_note(f"{saved}go on with: diffalign find --resume {path}")
        raise


def forget_pictures(path: Path) -> None:
    """Removes the pictures that `generate` made of the noise that a run's folder held before."""
    for file in (path / PICTURES).glob("seed*-*.png"):
        file.unlink()
