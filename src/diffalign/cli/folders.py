"""Names and places of the folders that commands write."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from diffalign.artifacts import CONFIG, REPORT, STATE, SUMMARY, RunFolder, WriteError
from diffalign.policies.noise import ArtifactError

RUNS = Path("runs")
_LONGEST = 60


def slug(text: str) -> str:
    """A name for a file: lower-case words joined by dashes; what is cut off is told apart by a hash."""
    words = re.sub(r"[^\w]+", "-", text.lower()).strip("-_")
    if words and len(words) <= _LONGEST:
        return words
    return f"{words[:_LONGEST]}-{_digest(text)}".lstrip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def places(texts: Sequence[str], parent: Path) -> list[Path]:
    """A folder in `parent` for each prompt; those whose names are the same are told apart by a hash."""
    names = [slug(text) for text in texts]
    taken = Counter(names)
    return [
        parent / (f"{name}-{_digest(text)}" if taken[name] > 1 else name)
        for name, text in zip(names, texts, strict=True)
    ]


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
def resumable(path: Path, command: str = "find") -> Iterator[None]:
    """Adds to what stops a run, Ctrl-C included, how to go on with it; not where that would stop it again."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, WriteError) or not isinstance(error, ArtifactError):
            saved = (path / STATE).is_file() and not isinstance(error, WriteError)
            error.add_note(f"{'state saved, ' * saved}go on with: diffalign {command} --resume {path}")
        raise
