"""`diffalign find`: learn a prompt's initial noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.text import Text

from diffalign.cli.errors import UsageError
from diffalign.cli.options import LEARNING, RUN, Evaluation, Sampling
from diffalign.training.noise_config import NoiseConfig

if TYPE_CHECKING:
    from diffalign.run import Setup

_OUTPUT = Parameter(group=RUN)
_FLAG = Parameter(negative="", group=LEARNING)
_SWITCH = Parameter(negative="", group=RUN)
_SAMPLING, _EVALUATION, _NOISE = Sampling(), Evaluation(), NoiseConfig()


@dataclass(frozen=True)
class Plan:
    """One prompt's run: its folder and all its settings."""

    prompt: str
    folder: Path
    sampling: Sampling
    reward: str
    preset: str
    noise: NoiseConfig
    evaluation: Evaluation

    def settings(self) -> dict[str, Any]:
        """The content of `config.yaml`, which `--config` and `--resume` read."""
        names = {"prompt": self.prompt, "reward": self.reward, "preset": self.preset}
        return {**names, **asdict(self.sampling), **asdict(self.noise), **asdict(self.evaluation)}


def find(
    *prompt: Annotated[str, Parameter(group=RUN)],
    prompts: Annotated[str | None, _OUTPUT] = None,
    reward: Annotated[str, _OUTPUT] = "world-clip",
    out: Annotated[Path | None, _OUTPUT] = None,
    overwrite: Annotated[bool, _SWITCH] = False,
    resume: Annotated[str | None, _OUTPUT] = None,
    config: Annotated[Path | None, _OUTPUT] = None,
    sampling: Sampling = _SAMPLING,
    preset: Annotated[str, Parameter(group=LEARNING)] = "default",
    no_calibration: Annotated[bool, _FLAG] = False,
    no_clipping: Annotated[bool, _FLAG] = False,
    noise: Annotated[NoiseConfig, Parameter(name="*", group=LEARNING)] = _NOISE,
    evaluation: Evaluation = _EVALUATION,
) -> int:
    """See `_FIND` in `cli/__init__.py`.

    Args:
        prompt: what the pictures should show; several prompts get a folder each.
        prompts: a set of `diffalign prompts`, or a .txt or .json file, instead of PROMPT.
        reward: a name of `diffalign rewards`, or your own as my_module:my_function.
        out: the run's folder; runs/ and the prompt by default.
        overwrite: replace the run that the folder holds.
        resume: go on with the run in a folder; without one, in the folder of --out or of the prompt.
        config: a YAML file of settings, such as a run's config.yaml; what is given here goes first.
        preset: default, or paper for Chen et al. (2024).
        no_calibration: the paper's ablation without DRCM, --advantage none.
        no_clipping: the paper's ablation without RCA, --clip-range 0.
    """
    from diffalign.cli.folders import RUNS, places, slug
    from diffalign.cli.loading import check_prompts, read_prompt_set

    if prompts is not None and prompt:
        raise UsageError("give prompts or --prompts, not both")
    texts = tuple(dict.fromkeys(prompt)) if prompts is None else read_prompt_set(prompts)
    if len(texts) == 1:
        folders = [out or RUNS / slug(texts[0])]
    else:
        parent = out or (RUNS if prompts is None else RUNS / slug(Path(prompts).stem))
        folders = places(texts, parent)
    if resume is not None:
        return _resume(Path(resume) if resume else out or (folders[0] if len(texts) == 1 else RUNS))
    check_prompts(texts, reward, evaluation.judge)
    plans = [
        Plan(text, folder, sampling, reward, preset, noise, evaluation)
        for text, folder in zip(texts, folders, strict=True)
    ]
    return _run(plans, overwrite=overwrite, resuming=False)


def _resume(path: Path) -> int:
    from diffalign.artifacts import CONFIG
    from diffalign.cli import app
    from diffalign.cli.folders import begun, finished
    from diffalign.cli.settings import read_settings
    from diffalign.cli.tables import stdout

    plans = []
    for folder in begun(path):
        settings = read_settings(folder / CONFIG)
        if not settings.get("prompt") or "keep" in settings:  # search keeps
            said = f"{folder / CONFIG} was not written by diffalign find"
            if folder == path:
                raise UsageError(f"{said}: there is nothing to go on with")
            stdout().print(Text(f"{folder} is left out: {said}"), soft_wrap=True)
            continue
        if finished(folder):
            stdout().print(Text(f"{folder} is finished; --overwrite starts it anew"), soft_wrap=True)
            continue
        _, bound, _ = app.parse_args(["find", "--config", str(folder / CONFIG)])
        given = {"preset": "default", "reward": "world-clip", **bound.arguments}
        plans.append(
            Plan(
                given["prompt"][0],
                folder,
                given.get("sampling", _SAMPLING),
                given["reward"],
                given["preset"],
                given.get("noise", _NOISE),
                given.get("evaluation", _EVALUATION),
            )
        )
    # those that need the same model and reward follow each other
    plans.sort(key=lambda plan: repr((plan.sampling, plan.reward)))
    return _run(plans, overwrite=False, resuming=True) if plans else 0


def _run(plans: list[Plan], *, overwrite: bool, resuming: bool) -> int:
    """Runs plans; those that do not resume share all settings but prompt and folder."""
    from diffalign.artifacts import NOISE, RunFolder
    from diffalign.cli.folders import resumable
    from diffalign.cli.loading import surprises
    from diffalign.cli.progress import RunProgress
    from diffalign.cli.settings import command_line
    from diffalign.cli.tables import one_liner, overview, paths, results, stdout, warn
    from diffalign.run import align, pictures_of_a_run, written

    console, load, summaries = stdout(), _loader(), []
    if not resuming:
        for plan in plans:
            RunFolder.check(plan.folder, overwrite)
        load(plans[0])  # what does not fit leaves no folder
        for plan in plans:
            RunFolder.create(plan.folder, plan.settings(), overwrite=overwrite)
    for plan in plans:
        folder = RunFolder.resume(plan.folder)
        with folder.lock():
            setup = load(plan)
            model, sampler = setup.model, setup.sampler
            warn(console, surprises(sampler, [plan.prompt], plan.evaluation.judge, model))
            images, baselines = plan.evaluation.images, plan.evaluation.baselines
            names = ("seed", "num_steps", "scheduler", "batch_size", "preset")
            record = {name: plan.settings()[name] for name in names}
            record["command"] = command_line(plan.settings(), _defaults(plan.preset))
            total = pictures_of_a_run(plan.noise.queries, images, baselines)
            with resumable(folder.path), RunProgress(console, total) as progress:
                summary = align(
                    folder,
                    plan.prompt,
                    setup,
                    plan.noise,
                    images=images,
                    baselines=baselines,
                    progress=progress,
                    run=record,
                )
        summaries.append(summary)
        console.print(results(summary))
        paths(console, written(folder))
        call = {"num_inference_steps": sampler.num_steps, "guidance_scale": sampler.guidance_scale}
        console.print("more pictures, in plain diffusers:")
        ddim, video = plan.sampling.scheduler == "ddim", len(sampler.latent_shape) == 4
        line = one_liner(folder / NOISE, model, plan.prompt, call, ddim=ddim, video=video)
        console.print(Text("  " + line), soft_wrap=True)
    if len(summaries) > 1:
        console.print(overview(summaries))
    return 0


def _loader() -> Callable[[Plan], Setup]:
    """Loads what a plan asks for; what the plan before it asked for too is there already."""
    from diffalign.cli.loading import check_basis, check_pictures, load_judge, load_sampler, reward_for
    from diffalign.metrics import embedder
    from diffalign.policies.generator import NoiseGenerator
    from diffalign.run import Setup

    # the last of each alone, as a model is large
    once = lru_cache(maxsize=1)
    reward_of, sampler_of, embedder_of = once(reward_for), once(load_sampler), once(embedder)

    def load(plan: Plan) -> Setup:
        """The setup of a plan.

        Raises:
            UsageError, ArtifactError: if reward, judge, basis or start do not fit the model.
        """
        model, choice = plan.sampling.model, plan.evaluation.judge
        reward = reward_of(plan.reward, plan.sampling)
        sampler = sampler_of(plan.sampling)
        check_pictures(sampler, plan.reward, choice)
        check_basis(sampler, plan.noise.basis)
        if plan.noise.start:
            NoiseGenerator.load(plan.noise.start, sampler.pipeline)
        judge = load_judge(choice, model, plan.prompt)
        judge_name = None if judge is None else "world-scene"
        return Setup(sampler, reward, judge, embedder_of(model), model, plan.reward, judge_name)

    return load


def _defaults(preset: str) -> dict[str, Any]:
    """What `find` takes where nothing is given, for `command_line`."""
    from diffalign.methods import PRESETS

    own = {
        field.name: field.default
        for kind in (Sampling, Evaluation)
        for field in fields(kind)
        if field.default is not MISSING
    }
    return {**own, **asdict(PRESETS[preset]), "reward": "world-clip", "preset": "default"}
