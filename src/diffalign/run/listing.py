"""The runs in folders, as rows: what was asked for, how far they are, what they gained, how they differ."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.files import COMPARISON, CONFIG, GENERATOR, SUMMARY, ArtifactError
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
    rows, settings = list[dict[str, Any]](), list[Mapping[str, Any]]()
    for folder in (RunFolder(file.parent) for file in files):
        try:
            config = folder.config()
            rows.append(_row(folder, config))
        except ArtifactError:
            config = {}
            rows.append(_row(folder, config, "damaged"))
        settings.append({name: value for name, value in config.items() if name not in _SHOWN})
    for row, own in zip(rows, settings, strict=True):
        alike = [other for each, other in zip(rows, settings, strict=True) if each["method"] == row["method"]]
        row["differs"] = {
            name: value for name, value in own.items() if any(other.get(name) != value for other in alike)
        }
    return rows


def _row(folder: RunFolder, config: Mapping[str, Any], state: str | None = None) -> dict[str, Any]:
    """A run; its `state` and figures are read unless it is given."""
    rounds = folder.metrics() if state is None else []
    if state is None:
        learned = config.get("method") in METHODS
        whole = folder.finished() if learned else any((folder / n).is_file() for n in (COMPARISON, GENERATOR))
        state = "finished" if whole else "unfinished"
    found = json.loads((folder / SUMMARY).read_text("utf-8")) if (folder / SUMMARY).is_file() else {}
    return {
        "run": str(folder.path),
        "method": config.get("method", ""),
        "model": config.get("model", ""),
        "prompts": config.get("prompt") or config.get("prompts") or "",
        "reward": config.get("reward", ""),
        "state": state,
        "queries": rounds[-1]["queries"] if rounds else None,
        **_gain(found, "reward", "reward"),
        **_gain(found, "judged_accuracy", "right"),
    }


def _gain(summary: Mapping[str, Any], figure: str, name: str) -> dict[str, float | None]:
    """A figure's mean before and after; None where it was not measured."""
    rows = summary.get("rows") or {"baseline": summary.get("all"), "tuned": summary.get("kept")}
    sides = {"before": rows.get("baseline"), "after": rows.get("tuned")}
    means = {side: (row or {}).get(figure) for side, row in sides.items()}
    return {f"{name}_{side}": mean and mean["mean"] for side, mean in means.items()}
