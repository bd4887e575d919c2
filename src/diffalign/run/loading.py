"""What a run needs: prompts, model, reward and judges, by the names that its plan gives, and its learner."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch

from diffalign.diffusion import Sampler, load_pipeline
from diffalign.diffusion.pipeline import denoiser, is_deterministic, takes_ddim
from diffalign.evaluation import Judge, world_judge
from diffalign.learners.contract import Learner
from diffalign.learners.processes import own_device
from diffalign.methods import build
from diffalign.metrics import Embedder, embedder
from diffalign.prompts import load_prompts
from diffalign.prompts.sampling import spread
from diffalign.rewards import RewardFunction, load_reward
from diffalign.settings.evaluation import JudgeChoice
from diffalign.settings.fields import ConfigError
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling
from diffalign.world.grammar import PromptError, parse
from diffalign.world.judge import judge as scene_judge
from diffalign.world.scenes import IMAGE_SIZE


@dataclass(frozen=True)
class Setup:
    """What a run samples, scores and measures with. The names are those that were asked for."""

    sampler: Sampler
    reward: RewardFunction
    judges: Mapping[str, Judge | None]  # by prompt
    embed: Embedder | None
    model: str
    reward_name: str
    judge_name: str | None


@dataclass(frozen=True)
class Job:
    """A run that may begin.

    Attributes:
        held_out: the prompts that it is measured on.
        warnings: what one should know before.
    """

    plan: Plan
    learner: Learner
    setup: Setup
    held_out: tuple[str, ...]
    warnings: tuple[str, ...]


def load_sampler(options: Sampling) -> Sampler:
    """The model's pipeline, ready to sample.

    Raises:
        ConfigError, PipelineError: if device or model do not exist, or the model has no denoiser.
    """
    device = None if options.device is None else check_device(options.device)
    dtype = None if options.dtype is None else getattr(torch, options.dtype)
    pipeline = load_pipeline(options.model, device=device, dtype=dtype, scheduler=options.scheduler)
    denoiser(pipeline)
    return Sampler(
        pipeline,
        num_steps=options.num_steps,
        guidance_scale=options.guidance_scale,
        batch_size=options.batch_size,
    )


def reward_for(name: str, options: Sampling) -> RewardFunction:
    """The reward called `name`, where `options` say.

    Raises:
        RewardError, ConfigError: if it or its device is not there.
    """
    device = options.reward_device or options.device
    flag = "--reward-device" if options.reward_device else "--device"
    return load_reward(
        name, device=None if device is None else check_device(device, flag), offload=options.offload
    )


class Loader:
    """Loads for runs that follow each other; the last model and reward alone are kept, as they are large."""

    def __init__(self) -> None:
        once = lru_cache(maxsize=1)
        self.sampler, self.reward, self.embedder = once(load_sampler), once(reward_for), once(embedder)

    def job(self, plan: Plan) -> Job:
        """All that `plan` asks for, checked.

        Raises:
            ConfigError, PromptError: if the settings do not fit each other, the prompts or the model.
            ArtifactError, PipelineError, RewardError: if something is not there.
        """
        prompts = plan.prompts if isinstance(plan.prompts, tuple) else read_prompts(plan.prompts)
        named = getattr(plan.evaluation, "held_out", None)
        held_out = spread(prompts) if named is None else read_prompts(named)
        setup = self.setup(plan.sampling, plan.reward, plan.evaluation.judge, prompts, held_out)
        learner = build(plan.method, setup.sampler, prompts, plan.learning, plan.reward)
        return Job(plan, learner, setup, held_out, warnings_for(setup, plan.evaluation.judge, held_out))

    def setup(
        self,
        sampling: Sampling,
        reward: str,
        judge: JudgeChoice,
        prompts: Sequence[str],
        held_out: Sequence[str],
    ) -> Setup:
        """Model, reward and judges.

        Arguments:
            prompts: that are learned from.
            held_out: that are measured on, and so judged.

        Raises:
            ConfigError, PromptError, PipelineError, RewardError: as `job`.
        """
        check_prompts([*prompts, *held_out], reward, judge)
        if sampling.device is None and (device := own_device()) is not None:
            sampling = replace(sampling, device=str(device))
        function, sampler = self.reward(reward, sampling), self.sampler(sampling)
        check_pictures(sampler, reward, judge)
        judges = {prompt: load_judge(judge, sampling.model, prompt) for prompt in held_out}
        name = "world-scene" if any(judges.values()) else None
        embed = self.embedder(sampling.model)
        return Setup(sampler, function, judges, embed, sampling.model, reward, name)


def check_device(name: str, flag: str = "--device") -> torch.device:
    """The device called `name`, which `flag` asked for.

    Raises:
        ConfigError: if it is not here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any of these
        reason = str(error).splitlines()[0].rstrip(".")
        if reason.startswith("Expected one of"):  # and forty names
            reason = "there is no such kind of device"
        raise ConfigError(
            f"cannot use the device {name!r} ({reason}); leave {flag} out, or give cpu"
        ) from error
    return device


def load_judge(choice: JudgeChoice, model: str, prompt: str) -> Judge | None:
    """The judge of a prompt's pictures; None if there is none.

    Raises:
        PromptError: if a judge was asked for that cannot read the prompt.
    """
    if choice == "none":
        return None
    if choice == "auto":
        return world_judge(model, prompt)
    parse(prompt)
    return scene_judge


def check_pictures(sampler: Sampler, reward: str, judge: JudgeChoice) -> None:
    """Checks, before anything is sampled, that the world's rewards and judge can read the model's pictures.

    Raises:
        ConfigError: if they have another size.
    """
    scale = getattr(sampler.pipeline, "vae_scale_factor", None)
    sizes = [scale * size for size in sampler.latent_shape[-2:]] if isinstance(scale, int) else []
    if all(size == IMAGE_SIZE for size in sizes):
        return
    worldly = any(name in reward for name in ("world-clip", "world-scene"))
    for reads, reader, instead in (
        (worldly, f"reward {reward}", "another, such as --reward clip"),
        (judge == "world-scene", f"judge {judge}", "--judge none"),
    ):
        if reads:
            raise ConfigError(
                f"the {reader} reads {IMAGE_SIZE}×{IMAGE_SIZE} pictures, but this model makes "
                f"{'×'.join(map(str, sizes))}; use {instead}"
            )


def check_prompts(prompts: Sequence[str], reward: str, judge: JudgeChoice) -> None:
    """Checks, before anything is sampled, that the prompts can be used.

    Raises:
        ConfigError: if one is empty, or none is there.
        PromptError: if the reward or the judge cannot read one.
    """
    if not prompts:
        raise ConfigError("no prompt; write what the pictures should show, such as 'a blue car on the moon'")
    for prompt in prompts:
        if not prompt.strip():
            raise ConfigError("the prompt is empty; write what the pictures should show")
        if "world-scene" in (reward, judge):
            try:
                parse(prompt)
            except PromptError as error:
                flag = "--reward" if reward == "world-scene" else "--judge"
                error.add_note(f"{flag} world-scene needs a prompt in the world's language")
                raise


def read_prompts(name: str) -> tuple[str, ...]:
    """The prompts of a set or file, each once.

    Raises:
        ConfigError: if there is no such file.
        UnknownPromptSetError, PromptFileError: if there is no such set, or the file holds no prompts.
    """
    try:
        return tuple(dict.fromkeys(load_prompts(name).texts))
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error


def unrepeatable(sampler: Sampler) -> str | None:
    """Why the model's pictures cannot be made again from their noise, and what helps; None if they can."""
    if is_deterministic(sampler.pipeline):
        return None
    name = type(sampler.pipeline.scheduler).__name__
    advice = "; use --scheduler ddim" if takes_ddim(sampler.pipeline) else ""
    return (
        f"{name} adds noise on the way, so x_T does not determine the picture: "
        f"pictures and figures are not reproducible{advice}"
    )


def warnings_for(setup: Setup, judge: JudgeChoice, prompts: Sequence[str]) -> tuple[str, ...]:
    """What one should know before a run: why its pictures cannot be made again, and which prompts have no
    judge."""
    warnings = [unrepeatable(setup.sampler)]
    if judge == "auto" and setup.model == "world":
        for prompt in prompts:
            try:
                parse(prompt)
            except PromptError as error:
                warnings.append(f"no judge for this prompt: {error}")
    return tuple(warning for warning in warnings if warning)
