"""Options that several commands share, as frozen dataclasses: their docs are the `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from cyclopts import Group, Parameter, validators

RUN = Group("Run", sort_key=1)
SAMPLING = Group("Pictures", sort_key=2)
LEARNING = Group("Learning", sort_key=3)
EVALUATION = Group("Evaluation", sort_key=4)

Positive = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Dtype = Literal["float32", "float16", "bfloat16"]
JudgeChoice = Literal["auto", "none", "world-scene"]


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True)
class Sampling:
    """How pictures are made.

    Attributes:
        model: a name of `diffalign models`, the folder of a saved pipeline, or a hub name.
        num_steps: sampler steps.
        guidance_scale: classifier-free guidance; the pipeline's default if not given.
        batch_size: pictures made at a time; it changes nothing but time and memory.
        scheduler: the pipeline's own, or DDIM, which the papers use.
        device: such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: float32 on a CPU and float16 elsewhere, by default.
        reward_device: of a reward that is a network; the pictures' device by default.
        offload: let the reward's network wait on the CPU while pictures are made.
    """

    model: str = "world"
    num_steps: Positive = 20
    guidance_scale: Annotated[float | None, Parameter(validator=validators.Number(gte=0))] = None
    batch_size: Positive = 16
    scheduler: Literal["keep", "ddim"] = "keep"
    device: str | None = None
    dtype: Dtype | None = None
    reward_device: str | None = None
    offload: Annotated[bool, Parameter(negative="")] = False


@Parameter(name="*")
@dataclass(frozen=True)
class Opening:
    """How the model of learned noise is opened; all else is as it was when the noise was learned.

    Attributes:
        model: the model, where it is not found by the name that was recorded.
        batch_size: pictures made at a time.
        device: such as cpu or cuda:0.
        dtype: precision; that which the noise was learned in by default, on a CPU float32 for float16.
    """

    model: str | None = None
    batch_size: Positive = 16
    device: str | None = None
    dtype: Dtype | None = None


@Parameter(name="*", group=EVALUATION)
@dataclass(frozen=True)
class Evaluation:
    """What is measured at the end.

    Attributes:
        images: fresh pictures of each row.
        judge: what gives verdicts; auto takes the world's exact judge where it can read the prompt.
        baselines: whether best-of-N at equal cost is measured too.
    """

    images: Positive = 64
    judge: JudgeChoice = "auto"
    baselines: bool = True


@Parameter(name="*", group=EVALUATION)
@dataclass(frozen=True)
class Looking:
    """What is measured on held-out prompts, while learning and at the end.

    Attributes:
        images: fresh pictures a prompt of each row, at the end.
        judge: what gives verdicts; auto takes the world's exact judge where it can read the prompts.
        look_every: rounds between two looks at held-out prompts while learning; 0 never looks.
        look_images: fresh pictures a prompt at a look.
        stop_on_alarm: end the run when the reward rises while the judged share or diversity falls.
    """

    images: Positive = 16
    judge: JudgeChoice = "auto"
    look_every: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 10
    look_images: Positive = 8
    stop_on_alarm: bool = False


@Parameter(name="*", group=EVALUATION)
@dataclass(frozen=True)
class Keeping:
    """What is kept of a run on the way.

    Attributes:
        keep: how many adapters of past looks stay, in checkpoints.
        tracker: tensorboard, wandb or another that accelerate speaks to, beside metrics.jsonl.
    """

    keep: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0
    tracker: str | None = None
