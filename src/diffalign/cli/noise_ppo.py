"""`diffalign noise-ppo`: learn one generator of initial noise for many prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diffalign.cli.options import LEARNING, RUN, Looking, Sampling
from diffalign.cli.plans import Plan, planned, resumed
from diffalign.training.generator_config import GeneratorConfig

_OUTPUT = Parameter(group=RUN)
_SWITCH = Parameter(negative="", group=RUN)
_SAMPLING, _GENERATOR, _LOOKING = Sampling(), GeneratorConfig(), Looking()


def noise_ppo(
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
    learning: Annotated[GeneratorConfig, Parameter(name="*", group=LEARNING)] = _GENERATOR,
    looking: Looking = _LOOKING,
) -> int:
    """See `_NOISE_PPO` in `cli/__init__.py`.

    Args:
        prompts: what to learn from: a set of `diffalign prompts`, or a .txt or .json file.
        held_out: what to measure on, likewise; by default 24 of the training prompts, or all if fewer.
        reward: a name of `diffalign rewards`, or your own as my_module:my_function.
        out: the run's folder; runs/noise-ppo- and the preset by default.
        overwrite: replace the run that the folder holds.
        resume: go on with the run in a folder; without one, in the folder of --out.
        config: a YAML file of settings, such as a run's config.yaml; what is given here goes first.
        preset: default, or paper for Miao et al. (2025): one Gaussian a prompt, PPO with a value head.
    """
    from diffalign.artifacts import RunFolder
    from diffalign.cli.folders import RUNS

    folder = Path(resume) if resume else out or RUNS / f"noise-ppo-{preset}"
    if resume is not None:
        found = resumed(folder, "noise-ppo", "prompts_per_round", _GENERATOR)
        return 0 if found is None else _run(*found, _prepare(found[1]))
    plan = planned(
        prompts,
        learning,
        held_out=held_out,
        reward=reward,
        preset=preset,
        sampling=sampling,
        looking=looking,
    )
    RunFolder.check(folder, overwrite)
    job = _prepare(plan)  # what does not fit leaves no folder
    return _run(RunFolder.create(folder, plan.settings(), overwrite=overwrite), plan, job)


def _prepare(plan: Plan[GeneratorConfig]) -> tuple[Any, Any, tuple[str, ...]]:
    """The run, what it is measured with, and the held-out prompts."""
    from diffalign.cli.loading import load_many
    from diffalign.methods import NoisePPO

    texts, others, setup = load_many(
        plan.prompts, plan.held_out, plan.reward, plan.sampling, plan.looking.judge
    )
    run = NoisePPO(setup.sampler, texts, setup.reward, plan.learning, reward_name=plan.reward)
    return run, setup, others


def _run(folder: Any, plan: Plan[GeneratorConfig], job: tuple[Any, Any, tuple[str, ...]]) -> int:
    from diffalign.cli.folders import resumable
    from diffalign.cli.loading import surprises
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import paths, results, stdout, warn
    from diffalign.run import generate_in, pictures_of_a_generator, written_by_a_generator

    run, setup, held_out = job
    console, guard, images = stdout(), plan.guard, plan.looking.images
    warn(console, surprises(setup.sampler, held_out, plan.looking.judge, setup.model))
    total = pictures_of_a_generator(run, guard, len(held_out), images)
    record = plan.record() | {"generator": "generator.safetensors"}
    with folder.lock(), resumable(folder.path, "noise-ppo"), RunProgress(console, total) as progress:
        summary = generate_in(
            folder,
            run,
            setup,
            held_out,
            images=images,
            guard=guard,
            progress=progress,
            record=record,
        )
    console.print(results(summary))
    paths(console, written_by_a_generator(folder))
    return 0
