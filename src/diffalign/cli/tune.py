"""`diffalign tune`: learn the denoiser's weights."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.text import Text

from diffalign.cli.errors import UsageError
from diffalign.cli.options import EVALUATION, LEARNING, RUN, JudgeChoice, Positive, Sampling
from diffalign.training.config import TuneConfig

_OUTPUT = Parameter(group=RUN)
_SWITCH = Parameter(negative="", group=RUN)
_SAMPLING, _TUNE = Sampling(), TuneConfig()


@Parameter(name="*", group=EVALUATION)
@dataclass(frozen=True)
class Watching:
    """What is measured on held-out prompts, while learning and at the end.

    Attributes:
        images: fresh pictures a prompt of each row, at the end.
        judge: what gives verdicts; auto takes the world's exact judge where it can read the prompts.
        look_every: rounds between two looks at held-out prompts while learning; 0 never looks.
        look_images: fresh pictures a prompt at a look.
        stop_on_alarm: end the run when the reward rises while the judged share or diversity falls.
        keep: how many adapters of past looks stay, in checkpoints.
        tracker: tensorboard, wandb or another that accelerate speaks to, beside metrics.jsonl.
    """

    images: Positive = 16
    judge: JudgeChoice = "auto"
    look_every: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 10
    look_images: Positive = 8
    stop_on_alarm: bool = False
    keep: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0
    tracker: str | None = None


_WATCHING = Watching()


@dataclass(frozen=True)
class Plan:
    """All settings of a run."""

    prompts: str
    held_out: str | None
    reward: str
    preset: str
    sampling: Sampling
    learning: TuneConfig
    watching: Watching

    def settings(self) -> dict[str, Any]:
        """The content of `config.yaml`, which `--config` and `--resume` read."""
        names = ("prompts", "held_out", "reward", "preset")
        parts = asdict(self.sampling) | asdict(self.learning) | asdict(self.watching)
        return {name: getattr(self, name) for name in names} | parts


def tune(
    *,
    prompts: Annotated[str | None, _OUTPUT] = None,
    held_out: Annotated[str | None, _OUTPUT] = None,
    reward: Annotated[str, _OUTPUT] = "world-clip",
    out: Annotated[Path | None, _OUTPUT] = None,
    overwrite: Annotated[bool, _SWITCH] = False,
    resume: Annotated[str | None, _OUTPUT] = None,
    config: Annotated[Path | None, _OUTPUT] = None,
    sampling: Sampling = _SAMPLING,
    preset: Annotated[str, Parameter(group=LEARNING)] = "default",
    learning: Annotated[TuneConfig, Parameter(name="*", group=LEARNING)] = _TUNE,
    watching: Watching = _WATCHING,
) -> int:
    """See `_TUNE` in `cli/__init__.py`.

    Args:
        prompts: what to train on: a set of `diffalign prompts`, or a .txt or .json file.
        held_out: what to measure on, likewise; the training prompts by default.
        reward: a name of `diffalign rewards`, or your own as my_module:my_function.
        out: the run's folder; runs/tune- and the preset by default.
        overwrite: replace the run that the folder holds.
        resume: go on with the run in a folder; without one, in the folder of --out.
        config: a YAML file of settings, such as a run's config.yaml; what is given here goes first.
        preset: default, or as published: ddpo, pg, dpok, dpo, or one of them with backward progressive
            training and branches: b2-ddpo, b2-pg, b2-dpok, b2-dpo.
    """
    from diffalign.artifacts import RunFolder
    from diffalign.cli.folders import RUNS

    folder = Path(resume) if resume else out or RUNS / f"tune-{preset}"
    if resume is not None:
        return _resume(folder)
    if prompts is None:
        raise UsageError("no prompts; name a set such as world/unusual, or a file, with --prompts")
    plan = Plan(prompts, held_out, reward, preset, sampling, learning, watching)
    main = int(os.environ.get("RANK", 0)) == 0  # of the processes of `accelerate launch`
    if main:
        RunFolder.check(folder, overwrite)
    job = _prepare(plan)  # what does not fit leaves no folder
    made = RunFolder.create(folder, plan.settings(), overwrite=overwrite) if main else RunFolder(folder)
    return _run(made, plan, job)


def _resume(path: Path) -> int:
    from diffalign.artifacts import CONFIG, RunFolder
    from diffalign.cli import app
    from diffalign.cli.folders import finished
    from diffalign.cli.settings import read_settings
    from diffalign.cli.tables import stdout

    folder = RunFolder.resume(path)
    if "objective" not in read_settings(path / CONFIG):
        raise UsageError(f"{path / CONFIG} was not written by diffalign tune: there is nothing to go on with")
    if finished(path):
        stdout().print(Text(f"{path} is finished; --overwrite starts it anew"), soft_wrap=True)
        return 0
    _, bound, _ = app.parse_args(["tune", "--config", str(path / CONFIG)])
    given = bound.arguments
    plan = Plan(
        given["prompts"],
        given.get("held_out"),
        given.get("reward", "world-clip"),
        given.get("preset", "default"),
        given.get("sampling", _SAMPLING),
        given.get("learning", _TUNE),
        given.get("watching", _WATCHING),
    )
    return _run(folder, plan, _prepare(plan))


def _prepare(plan: Plan) -> tuple[Any, Any, tuple[str, ...]]:
    """The run, what it is measured with, and the held-out prompts."""
    from diffalign.cli.loading import load_many
    from diffalign.methods import Tune
    from diffalign.run import check_tracker
    from diffalign.training.processes import own_device

    sampling = plan.sampling
    if sampling.device is None and (device := own_device()) is not None:
        sampling = replace(sampling, device=str(device))
    if plan.watching.tracker is not None:
        check_tracker(plan.watching.tracker)
    if (plan.watching.keep or plan.watching.stop_on_alarm) and not plan.watching.look_every:
        raise UsageError("--keep and --stop-on-alarm need looks; give --look-every too")
    texts, others, setup = load_many(plan.prompts, plan.held_out, plan.reward, sampling, plan.watching.judge)
    run = Tune(setup.sampler, texts, setup.reward, plan.learning, reward_name=plan.reward)
    return run, setup, others


def _run(folder: Any, plan: Plan, job: tuple[Any, Any, tuple[str, ...]]) -> int:
    from diffalign.cli.folders import resumable
    from diffalign.cli.loading import unread, unrepeatable
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import paths, results, stdout
    from diffalign.run import Guard, open_tracker, pictures_of_a_tuning, tune_in, written_by_tuning

    run, setup, held_out = job
    console, watching, main = stdout(), plan.watching, run.tuner.processes.is_main
    run.tuner.processes.gather([None])  # the main process has made the folder
    if not main:
        console.quiet = True
    for note in (unrepeatable(setup.sampler), *(unread(t, watching.judge, setup.model) for t in held_out)):
        if note:
            console.print(Text(note, style="yellow"), soft_wrap=True)
    guard = Guard(watching.look_every, watching.look_images, stop=watching.stop_on_alarm)
    total = pictures_of_a_tuning(run, guard, len(held_out), watching.images)
    record = {"preset": plan.preset, "seed": plan.learning.seed, "num_steps": plan.sampling.num_steps}
    record |= {"scheduler": plan.sampling.scheduler, "lora_rank": plan.learning.lora_rank}
    record["denoiser"] = "unet" if hasattr(setup.sampler.pipeline, "unet") else "transformer"
    with ExitStack() as stack:
        if main:
            stack.enter_context(folder.lock())
        stack.enter_context(resumable(folder.path, "tune"))
        progress = stack.enter_context(RunProgress(console, total))
        tracker = None
        if watching.tracker and main:
            tracker = open_tracker(watching.tracker, folder.path, plan.settings())
            stack.callback(tracker.finish)
        summary = tune_in(
            folder,
            run,
            setup,
            held_out,
            images=watching.images,
            guard=guard,
            progress=progress,
            record=record,
            keep=watching.keep,
            tracker=tracker,
        )
    if summary is not None:
        console.print(results(summary))
        paths(console, written_by_tuning(folder))
    return 0
