"""What is measured of a run and what is kept of it, on the way and at the end."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from diffalign.settings.fields import ConfigError, NotNegative, Positive, Settings

JudgeChoice = Literal["auto", "none", "world-scene"]


@dataclass(frozen=True)
class Evaluation(Settings):
    """What is measured and kept of a run.

    Attributes:
        images: How many fresh pictures of a prompt each row of the results has.
        judge: What gives verdicts; auto takes the world's exact judge where it can read the prompt.
        baselines: Whether best-of-N search at equal cost is measured too, as a row of the results.
        check_every: How many rounds lie between two checks on fresh pictures; 0 never checks.
        check_images: How many fresh pictures of a prompt a check makes.
        stop_on_alarm: Whether to stop when the reward rises while the judged share or the diversity falls.
        keep: How many earlier results, one a check, stay in the folder `checkpoints`.
        tracker: An experiment tracker beside metrics.jsonl: tensorboard, wandb or another of accelerate's.
    """

    images: Positive = 16
    judge: JudgeChoice = "auto"
    baselines: bool = False
    check_every: NotNegative = 10
    check_images: Positive = 8
    stop_on_alarm: bool = False
    keep: NotNegative = 0
    tracker: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for flag, given in (("keep", self.keep), ("stop_on_alarm", self.stop_on_alarm)):
            if given and not self.check_every:
                raise ConfigError(f"{flag} needs checks; give check_every too")


@dataclass(frozen=True)
class HeldOutEvaluation(Evaluation):
    """What is measured on held-out prompts.

    Attributes:
        held_out: The prompts to measure on: a set or a file; by default 24 of those that are learned from.
    """

    held_out: str | None = None


@dataclass(frozen=True)
class FindEvaluation(Evaluation):
    """What is measured of one prompt's pictures."""

    images: Positive = 64
    baselines: bool = True
    check_every: NotNegative = 0


@dataclass(frozen=True)
class SearchEvaluation(Settings):
    """What is measured of the pictures that a search keeps.

    Attributes:
        judge: What gives verdicts; auto takes the world's exact judge where it can read the prompt.
        tracker: An experiment tracker beside metrics.jsonl: tensorboard, wandb or another of accelerate's.
    """

    judge: JudgeChoice = "auto"
    tracker: str | None = None
    # it makes no fresh pictures
    images: ClassVar[int] = 0
    check_every: ClassVar[int] = 0
    check_images: ClassVar[int] = 0
    stop_on_alarm: ClassVar[bool] = False
    baselines: ClassVar[bool] = False
