"""The plan of `tune` and of `noise-ppo`: a run over a set of prompts, looked at on held-out ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rich.text import Text

from diffalign.cli.errors import UsageError
from diffalign.cli.options import Keeping, Looking, Sampling
from diffalign.training.generator_config import GeneratorConfig
from diffalign.training.tune_config import TuneConfig

if TYPE_CHECKING:
    from diffalign.artifacts import RunFolder
    from diffalign.run import Guard

Learning = TypeVar("Learning", TuneConfig, GeneratorConfig)
_PARTS = ("sampling", "learning", "looking", "keeping")


@dataclass(frozen=True)
class Plan(Generic[Learning]):
    """All settings of a run."""

    prompts: str
    learning: Learning
    held_out: str | None = None
    reward: str = "world-clip"
    preset: str = "default"
    sampling: Sampling = field(default_factory=Sampling)
    looking: Looking = field(default_factory=Looking)
    keeping: Keeping | None = None

    def __post_init__(self) -> None:
        asked = {"--keep": self.keeping and self.keeping.keep, "--stop-on-alarm": self.looking.stop_on_alarm}
        for flag, given in asked.items():
            if given and not self.looking.look_every:
                raise UsageError(f"{flag} needs looks; give --look-every too")

    def settings(self) -> dict[str, Any]:
        """The content of `config.yaml`, which `--config` and `--resume` read."""
        names = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in _PARTS}
        parts: dict[str, Any] = {}
        for name in _PARTS:
            if (part := getattr(self, name)) is not None:
                parts |= asdict(part)
        return names | parts

    @property
    def guard(self) -> Guard:
        """What looks at held-out prompts."""
        from diffalign.run import Guard

        return Guard(self.looking.look_every, self.looking.look_images, stop=self.looking.stop_on_alarm)

    def record(self) -> dict[str, Any]:
        """What the summary says of the run."""
        return {
            "preset": self.preset,
            "seed": self.learning.seed,
            "num_steps": self.sampling.num_steps,
            "scheduler": self.sampling.scheduler,
        }


def planned(prompts: str | None, learning: Learning, **given: Any) -> Plan[Learning]:
    """The plan of a command line.

    Raises:
        UsageError: if there are no prompts, or settings contradict each other.
    """
    if prompts is None:
        raise UsageError("no prompts; name a set such as world/unusual, or a file, with --prompts")
    return Plan(prompts, learning, **given)


def resumed(
    path: Path, command: str, mark: str, learning: Learning
) -> tuple[RunFolder, Plan[Learning]] | None:
    """The run in the folder `path`, to go on with; None, and a word of it, if it is finished.

    Arguments:
        path: the folder.
        command: that wrote it.
        mark: a setting that no other command has.
        learning: the command's settings of learning where the folder gives none.

    Raises:
        UsageError: if another command wrote it.
    """
    from diffalign.artifacts import CONFIG, RunFolder
    from diffalign.cli import app
    from diffalign.cli.folders import finished
    from diffalign.cli.settings import read_settings
    from diffalign.cli.tables import stdout

    folder = RunFolder.resume(path)
    if mark not in read_settings(path / CONFIG):
        said = f"{path / CONFIG} was not written by diffalign {command}"
        raise UsageError(f"{said}: there is nothing to go on with")
    if finished(path):
        stdout().print(Text(f"{path} is finished; --overwrite starts it anew"), soft_wrap=True)
        return None
    _, bound, _ = app.parse_args([command, "--config", str(path / CONFIG)])
    names = {each.name for each in fields(Plan)}
    given = {name: value for name, value in bound.arguments.items() if name in names}
    return folder, Plan(**{"learning": learning, **given})
