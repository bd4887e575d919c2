"""`diffalign tune`: learn the denoiser's weights."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diffalign.cli.options import LEARNING, RUN, Keeping, Looking, Sampling
from diffalign.cli.plans import Plan, planned, resumed
from diffalign.training.tune_config import TuneConfig

_OUTPUT = Parameter(group=RUN)
_SWITCH = Parameter(negative="", group=RUN)
_SAMPLING, _TUNE, _LOOKING, _KEEPING = Sampling(), TuneConfig(), Looking(), Keeping()


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
    looking: Looking = _LOOKING,
    keeping: Keeping = _KEEPING,
) -> int:
    """See `_TUNE` in `cli/__init__.py`.

    Args:
        prompts: what to train on: a set of `diffalign prompts`, or a .txt or .json file.
        held_out: what to measure on, likewise; by default 24 of the training prompts, or all if fewer.
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
        found = resumed(folder, "tune", "objective", _TUNE)
        return 0 if found is None else _run(*found, _prepare(found[1]))
    plan = planned(
        prompts,
        learning,
        held_out=held_out,
        reward=reward,
        preset=preset,
        sampling=sampling,
        looking=looking,
        keeping=keeping,
    )
    main = int(os.environ.get("RANK", 0)) == 0  # of the processes of `accelerate launch`
    if main:
        RunFolder.check(folder, overwrite)
    job = _prepare(plan)  # what does not fit leaves no folder
    made = RunFolder.create(folder, plan.settings(), overwrite=overwrite) if main else RunFolder(folder)
    return _run(made, plan, job)


def _prepare(plan: Plan[TuneConfig]) -> tuple[Any, Any, tuple[str, ...]]:
    """The run, what it is measured with, and the held-out prompts."""
    from diffalign.cli.loading import load_many
    from diffalign.methods import Tune
    from diffalign.run import check_tracker
    from diffalign.training.processes import own_device

    sampling = plan.sampling
    if sampling.device is None and (device := own_device()) is not None:
        sampling = replace(sampling, device=str(device))
    if (tracker := (plan.keeping or _KEEPING).tracker) is not None:
        check_tracker(tracker)
    texts, others, setup = load_many(plan.prompts, plan.held_out, plan.reward, sampling, plan.looking.judge)
    run = Tune(setup.sampler, texts, setup.reward, plan.learning, reward_name=plan.reward)
    return run, setup, others


def _run(folder: Any, plan: Plan[TuneConfig], job: tuple[Any, Any, tuple[str, ...]]) -> int:
    from diffalign.cli.folders import resumable
    from diffalign.cli.loading import surprises
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import paths, results, stdout, warn
    from diffalign.run import open_tracker, pictures_of_a_tuning, tune_in, written_by_tuning

    run, setup, held_out = job
    console, main, guard, images = stdout(), run.tuner.processes.is_main, plan.guard, plan.looking.images
    keeping = plan.keeping or _KEEPING
    run.tuner.processes.gather([None])  # the main process has made the folder
    if not main:
        console.quiet = True
    warn(console, surprises(setup.sampler, held_out, plan.looking.judge, setup.model))
    total = pictures_of_a_tuning(run, guard, len(held_out), images)
    record = plan.record() | {"lora_rank": run.tuner.config.lora_rank}
    record["denoiser"] = "unet" if hasattr(setup.sampler.pipeline, "unet") else "transformer"
    with ExitStack() as stack:
        if main:
            stack.enter_context(folder.lock())
        stack.enter_context(resumable(folder.path, "tune"))
        progress = stack.enter_context(RunProgress(console, total))
        tracker = None
        if keeping.tracker and main:
            tracker = open_tracker(keeping.tracker, folder.path, plan.settings())
            stack.callback(tracker.finish)
        summary = tune_in(
            folder,
            run,
            setup,
            held_out,
            images=images,
            guard=guard,
            progress=progress,
            record=record,
            keep=keeping.keep,
            tracker=tracker,
        )
    if summary is not None:
        console.print(results(summary))
        paths(console, written_by_tuning(folder))
    return 0
