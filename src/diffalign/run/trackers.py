"""Experiment trackers (TensorBoard, Weights & Biases …): what accelerate speaks to, by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

from diffalign.files import LOGS
from diffalign.settings.choices import unknown
from diffalign.settings.fields import ConfigError


def check_tracker(name: str) -> None:
    """Checks that `open_tracker` can start it; changes nothing.

    Raises:
        ConfigError: if there is no such tracker, or its package is not installed.
    """
    if name not in LOGGER_TYPE_TO_CLASS:
        raise ConfigError(unknown("tracker", name, sorted(LOGGER_TYPE_TO_CLASS)))
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
    """The single numbers in a line of the metrics, those of a check of held-out prompts among them."""
    checked = {f"held_out/{name}": value for name, value in (row.get("held_out") or {}).items()}
    return {name: v for name, v in {**row, **checked}.items() if isinstance(v, int | float)}
