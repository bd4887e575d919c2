"""Models, rewards, judges and prompts by the names that the command line gave."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffalign.cli.errors import UsageError
from diffalign.cli.options import JudgeChoice, Sampling
from diffalign.diffusion import Sampler, load_pipeline
from diffalign.diffusion.pipeline import denoiser, is_deterministic, takes_ddim
from diffalign.evaluation import Judge, world_judge
from diffalign.metrics import embedder
from diffalign.policies.basis import make_basis
from diffalign.prompts import load_prompts
from diffalign.rewards import RewardFunction, load_reward
from diffalign.run import TuneSetup
from diffalign.search.spectral import LEVEL, divides
from diffalign.world.grammar import PromptError, parse
from diffalign.world.judge import judge as scene_judge
from diffalign.world.scenes import IMAGE_SIZE


def load_sampler(options: Sampling) -> Sampler:
    """The model's pipeline, ready to sample.

    Raises:
        UsageError, PipelineError: if device or model do not exist, or the model has no denoiser.
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
        RewardError, UsageError: if it or its device is not there.
    """
    asked = options.reward_device or options.device
    flag = "--reward-device" if options.reward_device else "--device"
    device = None if asked is None else check_device(asked, flag)
    return load_reward(name, device=device, offload=options.offload)


def check_device(name: str, flag: str = "--device") -> torch.device:
    """The device called `name`, which `flag` asked for.

    Raises:
        UsageError: if it is not here.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:  # torch raises any of these
        reason = str(error).splitlines()[0].rstrip(".")
        if reason.startswith("Expected one of"):  # and forty names
            reason = "there is no such kind of device"
        raise UsageError(
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
        UsageError: if they have another size.
    """
    scale = getattr(sampler.pipeline, "vae_scale_factor", None)
    sizes = [scale * size for size in sampler.latent_shape[-2:]] if isinstance(scale, int) else []
    if all(size == IMAGE_SIZE for size in sizes):
        return
    worldly = any(name in reward for name in ("world-clip", "world-scene"))
    for reads, who, instead in (
        (worldly, f"reward {reward}", "another, such as --reward clip"),
        (judge == "world-scene", f"judge {judge}", "--judge none"),
    ):
        if reads:
            raise UsageError(
                f"the {who} reads {IMAGE_SIZE}×{IMAGE_SIZE} pictures, but this model makes "
                f"{'×'.join(map(str, sizes))}; use {instead}"
            )


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


def check_search(sampler: Sampler, algorithms: Sequence[str]) -> None:
    """Checks, before anything is sampled, that the searches know the model's latents.

    Raises:
        UsageError: if not.
    """
    if "spectral" in algorithms and not divides(sampler.latent_shape):
        size = "×".join(map(str, sampler.latent_shape[-2:]))
        raise UsageError(f"spectral searches latents whose sides divide by {2**LEVEL}, not of {size}")


def surprises(sampler: Sampler, prompts: Sequence[str], judge: JudgeChoice, model: str) -> list[str]:
    """What one should know before the run: why its pictures cannot be made again, and which prompts have
    no judge."""
    notes = [unrepeatable(sampler), *(unread(prompt, judge, model) for prompt in prompts)]
    return [note for note in notes if note]


def check_basis(sampler: Sampler, basis: str) -> None:
    """Checks that noise of the model's shape can be learned in `basis`.

    Raises:
        UsageError: if not.
    """
    try:
        make_basis(basis, sampler.latent_shape)
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_prompts(prompts: Sequence[str], reward: str, judge: JudgeChoice) -> None:
    """Checks, before anything is sampled, that the prompts can be used.

    Raises:
        UsageError: if one is empty, or none is there.
        PromptError: if the reward or the judge cannot read one.
    """
    if not prompts:
        raise UsageError("no prompt; write what the pictures should show, such as 'a blue car on the moon'")
    for prompt in prompts:
        if not prompt.strip():
            raise UsageError("the prompt is empty; write what the pictures should show")
        if "world-scene" in (reward, judge):
            try:
                parse(prompt)
            except PromptError as error:
                asked = "--reward" if reward == "world-scene" else "--judge"
                error.add_note(f"{asked} world-scene needs a prompt in the world's language")
                raise


def unread(prompt: str, judge: JudgeChoice, model: str) -> str | None:
    """Why the world's judge has nothing to say of a prompt, if that may surprise."""
    if judge != "auto" or model != "world":
        return None
    try:
        parse(prompt)
    except PromptError as error:
        return f"no judge for this prompt: {error}"
    return None


def read_prompt_set(name: str) -> tuple[str, ...]:
    """The prompts of a set or file, each once."""
    try:
        return tuple(dict.fromkeys(load_prompts(name).texts))
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error


def spread(prompts: Sequence[str], most: int = 24) -> tuple[str, ...]:
    """At most so many of `prompts`, evenly spread."""
    number = min(most, len(prompts))
    return tuple(prompts[place * len(prompts) // number] for place in range(number))


def load_many(
    prompts: str, held_out: str | None, reward: str, sampling: Sampling, judge: JudgeChoice
) -> tuple[tuple[str, ...], tuple[str, ...], TuneSetup]:
    """Training prompts, held-out prompts (without a set of their own some of training), and what a run over
    them is measured with."""
    texts, model = read_prompt_set(prompts), sampling.model
    others = spread(texts) if held_out is None else read_prompt_set(held_out)
    check_prompts([*texts, *others], reward, judge)
    function, sampler = reward_for(reward, sampling), load_sampler(sampling)
    check_pictures(sampler, reward, judge)
    judges = {text: load_judge(judge, model, text) for text in others}
    name = "world-scene" if any(judges.values()) else None
    return texts, others, TuneSetup(sampler, function, judges, embedder(model), model, reward, name)
