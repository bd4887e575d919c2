"""The runs in folders, as rows: what was asked for, how far they are, what they gained, how they differ."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.files import COMPARISON, CONFIG, GENERATOR, SUMMARY, ArtifactError
from diffalign.report.html import read_summary
from diffalign.settings.methods import METHODS

#: Settings with a column of their own.
_SHOWN = "method", "model", "prompt", "prompts", "reward", "runs"


def list_runs(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """A row a run at or below `paths`, with the settings in which those of the same method differ.

    Raises:
        ArtifactError: if there is none.
    """
    files = sorted({file for path in paths for file in path.glob(f"**/{CONFIG}")})
    if not files:
        raise ArtifactError(f"no run in {', '.join(map(str, paths))}; a run's folder has a {CONFIG}")
    runs = [_read(RunFolder(file.parent)) for file in files]
    rows = [row for row, _ in runs]
    settings = [{name: value for name, value in own.items() if name not in _SHOWN} for _, own in runs]
    for row, own in zip(rows, settings, strict=True):
        alike = [other for each, other in zip(rows, settings, strict=True) if each["method"] == row["method"]]
        row["differs"] = {
            name: value for name, value in own.items() if any(other.get(name) != value for other in alike)
        }
    return rows


def _read(folder: RunFolder) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run as a row, and its settings; of a damaged one what can be read."""
    config, rounds, means, state = dict[str, Any](), list[dict[str, Any]](), _means({}), "damaged"
    with suppress(ValueError, LookupError, TypeError, AttributeError):
        config = folder.config()
        rounds = folder.metrics()
        if (folder / SUMMARY).is_file():
            means = _means(read_summary(folder / SUMMARY))
        learned = config.get("method") in METHODS
        whole = folder.finished() if learned else any((folder / n).is_file() for n in (COMPARISON, GENERATOR))
        state = "finished" if whole else "unfinished"
    row = {
        "run": str(folder.path),
        "method": config.get("method", ""),
        "model": config.get("model", ""),
        "prompts": config.get("prompt") or config.get("prompts") or "",
        "reward": config.get("reward", ""),
        "state": state,
        "queries": rounds[-1]["queries"] if rounds else None,
        **means,
    }
    return row, config


def _means(summary: Mapping[str, Any]) -> dict[str, float | None]:
    """Mean figures before and after; None where they were not measured."""
    drawn = summary.get("previews") or summary.get("all")  # of a search
    rows = summary.get("rows") or {"baseline": drawn, "tuned": summary.get("kept")}
    means = dict[str, float | None]()
    for figure, name in (("reward", "reward"), ("judged_accuracy", "right")):
        for row, side in (("baseline", "before"), ("tuned", "after")):
            interval = (rows.get(row) or {}).get(figure)
            means[f"{name}_{side}"] = interval and float(interval["mean"])
    return means
