"""The charts of a folder, from what it holds: a run's reward curve, a comparison's quality against cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffalign.artifacts import RunFolder
from diffalign.files import CHART, COMPARISON, CURVE, SUMMARY, ArtifactError
from diffalign.report.html import read_summary
from diffalign.report.plots import quality_against_cost, reward_curve
from diffalign.run.folders import read_plan
from diffalign.settings.plan import Plan


def draw_curve(
    folder: RunFolder, plan: Plan, summary: Mapping[str, Any], suffix: str = ".png"
) -> Path | None:
    """The reward curve of a run with `summary`; None where nothing was queried."""
    metrics = folder.metrics()
    if not any(line["rewards"] for line in metrics):
        return None
    given = plan.prompts
    number = len({prompt for line in metrics for prompt in line.get("prompts", ())})
    if isinstance(given, str):
        title = f"{number or 1} training prompts of {given}"
    else:
        title = given[0] if len(given) == 1 else f"{number} training prompts"
    baseline = summary.get("rows", {}).get("baseline") if summary["prompt"] == title else None
    frozen = baseline and baseline["reward"]["mean"]
    path = (folder / CURVE).with_suffix(suffix)
    return reward_curve(metrics, path, baseline=frozen, reward=summary["reward"], title=title)


def redraw_curve(folder: RunFolder, suffix: str = ".png") -> Path | None:
    """The reward curve of a finished run.

    Raises:
        ArtifactError: if the folder holds none, or a file in it is corrupt.
    """
    return draw_curve(folder, read_plan(folder), read_summary(folder / SUMMARY), suffix)


def draw_comparison(folder: RunFolder, suffix: str = ".png") -> Path:
    """The chart of a finished comparison.

    Raises:
        ArtifactError: if its table is not there, or corrupt.
    """
    try:
        table = json.loads((folder / COMPARISON).read_text("utf-8"))
        path = (folder / CHART).with_suffix(suffix)
        return quality_against_cost(table, path, reward=str(folder.config()["reward"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{folder / COMPARISON} is no table of a comparison: {error!r}") from error
