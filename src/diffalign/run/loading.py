"""Model, reward and judges, by the names that a plan gives, and its learner."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import torch

from diffalign.artifacts import RunFolder
from diffalign.diffusion import Sampler, load_pipeline
from diffalign.diffusion.encoding import unread
from diffalign.diffusion.loading import default_device, default_dtype
from diffalign.diffusion.pipeline import denoiser
from diffalign.diffusion.trial import try_out
from diffalign.evaluation import Judge
from diffalign.learners.processes import check_several, divide, own_device
from diffalign.methods import build
from diffalign.metrics import Embedder, embedder
from diffalign.rewards import RewardFunction, load_reward
from diffalign.run.asked import Asked
from diffalign.run.session import Session
from diffalign.run.setup import Setup
from diffalign.settings.evaluation import JudgeChoice
from diffalign.settings.fields import ConfigError
from diffalign.settings.sampling import Sampling
from diffalign.world import WORLD_MODELS, WORLD_VIDEO
from diffalign.world.grammar import PromptError, parse
from diffalign.world.judge import judge as scene_judge
from diffalign.world.scenes import IMAGE_SIZE


def load_sampler(options: Sampling, divided: bool = False) -> Sampler:
    """The model's pipeline, ready to sample; its denoiser divided among the processes, if asked for."""
    device = check_device(options.device) or default_device()
    dtype = default_dtype(device) if options.dtype is None else getattr(torch, options.dtype)
    if divided:
        check_several(device)
    pipeline = load_pipeline(
        options.model,
        device="cpu" if divided else device,
        dtype=dtype,
        scheduler=options.scheduler,
        offload=options.offload,
        **options.additions(),
    )
    denoiser(pipeline)
    if divided:
        divide(pipeline, device)
    return Sampler(
        pipeline,
        num_steps=options.num_steps,
        guidance_scale=options.guidance_scale,
        batch_size=options.batch_size,
        **options.arguments(),
    )


def reward_for(name: str, options: Sampling) -> RewardFunction:
    """The reward called `name`, where `options` say."""
    flag = "--reward-device" if options.reward_device else "--device"
    device = check_device(options.reward_device or options.device, flag)
    return load_reward(name, device=device, offload=options.offload)


class Loader:
    """Loads for runs that follow each other; the last model and reward alone are kept, as they are large."""

    def __init__(self) -> None:
        once = lru_cache(maxsize=1)
        self.sampler, self.reward, self.embedder = once(load_sampler), once(reward_for), once(embedder)

    def session(self, folder: RunFolder, asked: Asked) -> Session:
        """A run that may begin in `folder`."""
        plan = asked.plan
        divided = getattr(plan.learning, "shard", False)
        setup = self.setup(plan.sampling, plan.reward, plan.evaluation.judge, asked.held_out, divided)
        if warning := unread(setup.sampler.pipeline, tuple(dict.fromkeys((*asked.prompts, *asked.held_out)))):
            setup = replace(setup, warnings=(*setup.warnings, warning))
        learner = build(plan.method, setup.sampler, asked.prompts, plan.learning, plan.reward)
        return Session(folder, asked, setup, learner)

    def setup(
        self,
        sampling: Sampling,
        reward: str,
        judge: JudgeChoice,
        prompts: Sequence[str],
        divided: bool = False,
    ) -> Setup:
        """Model, its denoiser divided among the processes or not, reward and judges of `prompts`."""
        if sampling.device is None and (device := own_device()) is not None:
            sampling = replace(sampling, device=str(device))
        function, sampler = self.reward(reward, sampling), self.sampler(sampling, divided)
        return make_setup(sampler, function, self.embedder, sampling.model, reward, judge, prompts)


def make_setup(
    sampler: Sampler,
    function: RewardFunction,
    embed: Callable[[str], Embedder | None],
    model: str,
    reward: str,
    judge: JudgeChoice,
    prompts: Sequence[str],
) -> Setup:
    """What is loaded, checked, with the judges of `prompts` and what one should know before a run."""
    check_pictures(sampler, reward, judge)
    judges, warnings = dict[str, Judge | None](), [try_out(sampler, *prompts[:1])]
    if judge == "world-scene" or (judge == "auto" and model in WORLD_MODELS):
        faults = list[PromptError]()
        for prompt in prompts:
            try:
                parse(prompt, video=model == WORLD_VIDEO)
                judges[prompt] = scene_judge
            except PromptError as error:
                faults.append(error)
        if faults:
            which = "this prompt" if len(prompts) == 1 else f"{len(faults)} of {len(prompts)} prompts"
            warnings.append(f"no judge for {which}: {faults[0]}")
    return Setup(sampler, function, judges, embed(model), model, reward, tuple(filter(None, warnings)))


def check_device(name: str | None, flag: str = "--device") -> torch.device | None:
    """The device called `name`, which `flag` asked for; None, which is torch's choice, without a name."""
    if name is None:
        return None
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


def check_pictures(sampler: Sampler, reward: str, judge: JudgeChoice) -> None:
    """Checks, before any is sampled, that the world's rewards and judge can read the model's pictures."""
    if "world-clip" in reward and sampler.makes_videos:
        raise ConfigError(
            f"the reward {reward} reads pictures, but this model makes videos; take --reward world-scene "
            "for the embedded world's, viclip for others"
        )
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
