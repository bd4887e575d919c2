"""Experiment trackers (TensorBoard, Weights & Biases …): what accelerate speaks to, by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from diffalign.artifacts import LOGS
from diffalign.training import ConfigError


def check_tracker(name: str) -> None:
    """Checks that `open_tracker` can start it; changes nothing.

    Raises:
        ConfigError: if there is no such tracker, or its package is not installed.
    """
    if name not in LOGGER_TYPE_TO_CLASS:
        near = difflib.get_close_matches(name, LOGGER_TYPE_TO_CLASS, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        known = ", ".join(sorted(LOGGER_TYPE_TO_CLASS))
        raise ConfigError(f"unknown tracker {name!r}{hint}; choose one of: {known}")
    if name not in [str(tracker) for tracker in get_available_trackers()]:
        raise ConfigError(f"the tracker {name!r} is not installed here: pip install {name}")


def open_tracker(name: str, folder: Path, settings: Mapping[str, Any]) -> Any:
    """Starts the tracker called `name`; `.log(figures, step=…)` and `.finish()` are its user's to call.

    Arguments:
        folder: the run's; a tracker that writes files writes them to `logs` in it.
        settings: of the run, for the tracker's page of settings.

    Raises:
        ConfigError: if `check_tracker` says no.
    """
    check_tracker(name)
    kind = LOGGER_TYPE_TO_CLASS[name]
    tracker = kind(LOGS, folder) if kind.requires_logging_directory else kind("diffalign")
    tracker.start()
    tracker.store_init_configuration(
        {key: value for key, value in settings.items() if isinstance(value, bool | int | float | str)}
    )
    return tracker


def numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers in a line of the metrics, those of a look at held-out prompts among them."""
    looked = {f"held_out/{name}": value for name, value in (row.get("held_out") or {}).items()}
    return {name: v for name, v in {**row, **looked}.items() if isinstance(v, int | float)}
