"""Experiment trackers (TensorBoard, Weights & Biases …): what accelerate speaks to, by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from torch import Tensor

from diffalign.artifacts import RunFolder
from diffalign.files import LOGS
from diffalign.rollout import as_bytes
from diffalign.settings.choices import unknown
from diffalign.settings.fields import ConfigError


class Tracker:
    """The tracker called `name`, once it is started; without a name there is none.

    Raises:
        ConfigError: if there is no such tracker, or its package is not installed.
    """

    def __init__(self, name: str | None = None) -> None:
        if name is not None and name not in LOGGER_TYPE_TO_CLASS:
            raise ConfigError(unknown("tracker", name, sorted(LOGGER_TYPE_TO_CLASS)))
        if name is not None and name not in map(str, get_available_trackers()):
            raise ConfigError(f"the tracker {name!r} is not installed here: pip install {name}")
        self.name = name
        self._started: Any = None

    @contextmanager
    def started(self, folder: RunFolder) -> Iterator[None]:
        """Within it `log` writes; a tracker that writes files writes them to `logs` in the run's folder."""
        if self.name is None:
            yield
            return
        kind, config = LOGGER_TYPE_TO_CLASS[self.name], folder.config()
        tracker = kind(LOGS, folder.path) if kind.requires_logging_directory else kind("diffalign")
        tracker.start()
        kinds = bool | int | float | str
        tracker.store_init_configuration({key: v for key, v in config.items() if isinstance(v, kinds)})
        self._started = tracker
        try:
            yield
        finally:
            tracker.finish()

    def log_pictures(self, pictures: Tensor, round: int) -> None:
        """Shows pictures `(n, 3, H, W)`, of videos `(n, F, 3, H, W)` the first frames, if the tracker can."""
        if not hasattr(self._started, "log_images"):
            return
        frames = as_bytes(pictures[:, 0] if pictures.ndim == 5 else pictures)
        layout = {"dataformats": "NHWC"} if self.name == "tensorboard" else {}
        values = {"held_out/pictures": frames.permute(0, 2, 3, 1).numpy()}
        self._started.log_images(values, step=round, **layout)

    def log(self, row: Mapping[str, Any]) -> None:
        """Writes the single numbers in a line of the metrics, those of a check of held-out prompts too."""
        if self._started is not None:
            checked = {f"held_out/{name}": value for name, value in (row.get("held_out") or {}).items()}
            numbers = {name: v for name, v in {**row, **checked}.items() if isinstance(v, int | float)}
            self._started.log(numbers, step=row["round"])
