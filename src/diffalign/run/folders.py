"""Names of the folders that runs are kept in, and the runs that a folder holds."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unicodedata import category

from diffalign.artifacts import RunFolder
from diffalign.files import CONFIG, ArtifactError
from diffalign.settings.fields import ConfigError
from diffalign.settings.plan import Plan

RUNS = Path("runs")
LONGEST, MOST_BYTES = 60, 180  # of a name, as file systems allow 255 bytes, of which others add some


def slug(text: str) -> str:
    """A name for a file: lower-case words joined by dashes; what is cut off is told apart by a hash."""
    # marks belong to the letter before them: many scripts write vowels so
    kept = (c if c == "_" or c.isalnum() or category(c)[0] == "M" else " " for c in text.lower())
    words = "-".join("".join(kept).split()).strip("-_")
    cut = words[:LONGEST].encode()[:MOST_BYTES].decode("utf-8", "ignore")
    return words if words and cut == words else f"{cut}-{_digest(text)}".lstrip("-")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def folders_for(texts: Sequence[str], parent: Path) -> list[Path]:
    """A folder in `parent` for each prompt; those whose names are the same are told apart by a hash."""
    names = [slug(text) for text in texts]
    taken = Counter(names)
    return [
        parent / (f"{name}-{_digest(text)}" if taken[name] > 1 else name)
        for name, text in zip(names, texts, strict=True)
    ]


def read_plan(folder: RunFolder) -> Plan:
    """What was asked for; an ArtifactError if config.yaml is corrupt, or holds something else."""
    try:
        return Plan.of(folder.config())
    except ConfigError as error:
        raise ArtifactError(f"{folder / CONFIG} is no plan of a run: {error}") from error


def runs_in(path: Path) -> list[RunFolder]:
    """The runs at `path`: itself, or those of several prompts in it."""
    inside = [] if (path / CONFIG).is_file() else sorted(path.glob(f"*/{CONFIG}"))
    return [RunFolder(file.parent) for file in inside] or [RunFolder.resume(path)]
