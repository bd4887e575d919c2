"""`diffalign noise-ppo`: learn one generator of initial noise for many prompts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.text import Text

from diffalign.cli.errors import UsageError
from diffalign.cli.options import EVALUATION, LEARNING, RUN, JudgeChoice, Positive, Sampling
from diffalign.training.config import GeneratorConfig

_OUTPUT = Parameter(group=RUN)
_SWITCH = Parameter(negative="", group=RUN)
_SAMPLING, _GENERATOR = Sampling(), GeneratorConfig()


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


_LOOKING = Looking()


@dataclass(frozen=True)
class Plan:
    """All settings of a run."""

    prompts: str
    held_out: str | None
    reward: str
    preset: str
    sampling: Sampling
    learning: GeneratorConfig
    looking: Looking

    def settings(self) -> dict[str, Any]:
        """The content of `config.yaml`, which `--config` and `--resume` read."""
        names = ("prompts", "held_out", "reward", "preset")
        parts = asdict(self.sampling) | asdict(self.learning) | asdict(self.looking)
        return {name: getattr(self, name) for name in names} | parts


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
        held_out: what to measure on, likewise; the training prompts by default.
        reward: a name of `diffalign rewards`, or your own as my_module:my_function.
        out: the run's folder; runs/noise-ppo- and the preset by default.
        overwrite: replace the run that the folder holds.
        resume: go on with the run in a folder; without one, in the folder of --out.
        config: a YAML file of settings, such as a run's config.yaml; what is given here goes first.
        preset: default, or paper (every element of the latent, value head).
    """
    from diffalign.artifacts import RunFolder
    from diffalign.cli.folders import RUNS

    folder = Path(resume) if resume else out or RUNS / f"noise-ppo-{preset}"
    if resume is not None:
        return _resume(folder)
    if prompts is None:
        raise UsageError("no prompts; name a set such as world/unusual, or a file, with --prompts")
    plan = Plan(prompts, held_out, reward, preset, sampling, learning, looking)
    RunFolder.check(folder, overwrite)
    job = _prepare(plan)  # what does not fit leaves no folder
    return _run(RunFolder.create(folder, plan.settings(), overwrite=overwrite), plan, job)


def _resume(path: Path) -> int:
    from diffalign.artifacts import CONFIG, RunFolder
    from diffalign.cli import app
    from diffalign.cli.folders import finished
    from diffalign.cli.settings import read_settings
    from diffalign.cli.tables import stdout

    folder = RunFolder.resume(path)
    if "prompts_per_round" not in read_settings(path / CONFIG):
        raise UsageError(
            f"{path / CONFIG} was not written by diffalign noise-ppo: there is nothing to go on with"
        )
    if finished(path):
        stdout().print(Text(f"{path} is finished; --overwrite starts it anew"), soft_wrap=True)
        return 0
    _, bound, _ = app.parse_args(["noise-ppo", "--config", str(path / CONFIG)])
    given = bound.arguments
    plan = Plan(
        given["prompts"],
        given.get("held_out"),
        given.get("reward", "world-clip"),
        given.get("preset", "default"),
        given.get("sampling", _SAMPLING),
        given.get("learning", _GENERATOR),
        given.get("looking", _LOOKING),
    )
    return _run(folder, plan, _prepare(plan))


def _prepare(plan: Plan) -> tuple[Any, Any, tuple[str, ...]]:
    """The run, what it is measured with, and the held-out prompts."""
    from diffalign.cli.loading import load_many
    from diffalign.methods import NoisePPO

    texts, others, setup = load_many(
        plan.prompts, plan.held_out, plan.reward, plan.sampling, plan.looking.judge
    )
    run = NoisePPO(setup.sampler, texts, setup.reward, plan.learning, reward_name=plan.reward)
    return run, setup, others


def _run(folder: Any, plan: Plan, job: tuple[Any, Any, tuple[str, ...]]) -> int:
    from diffalign.cli.folders import resumable
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.tables import paths, results, stdout
    from diffalign.run import Guard, generate_in, pictures_of_a_generator, written_by_a_generator

    run, setup, held_out = job
    looking, console = plan.looking, stdout()
    guard = Guard(looking.look_every, looking.look_images, stop=looking.stop_on_alarm)
    total = pictures_of_a_generator(run, guard, len(held_out), looking.images)
    record = {"preset": plan.preset, "seed": plan.learning.seed, "num_steps": plan.sampling.num_steps}
    record |= {"scheduler": plan.sampling.scheduler, "generator": "generator.safetensors"}
    with folder.lock(), resumable(folder.path, "noise-ppo"), RunProgress(console, total) as progress:
        summary = generate_in(
            folder,
            run,
            setup,
            held_out,
            images=looking.images,
            guard=guard,
            progress=progress,
            record=record,
        )
    console.print(results(summary))
    paths(console, written_by_a_generator(folder))
    return 0
