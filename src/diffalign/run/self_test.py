"""Does everything work here? Checks of the machine, a model and a reward."""

import os
import platform
import time
from collections.abc import Callable, Iterator

import torch
from accelerate.utils import get_max_memory

from diffalign.diffusion import PipelineError, Sampler
from diffalign.diffusion.loading import default_device, default_dtype
from diffalign.diffusion.transition import gaussian_log_prob
from diffalign.diffusion.trial import try_out
from diffalign.diffusion.weights import count_weights
from diffalign.files import versions
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import score
from diffalign.rollout import collect_trajectories
from diffalign.run.loading import check_device, check_pictures, load_sampler, reward_for
from diffalign.settings.sampling import Sampling

PROMPT = "a dog on the grass"
SAME_RATIO = 5e-5  # largest |ρ − 1| before any update: half of DDPO's clip range


def self_test(options: Sampling, reward_name: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """What to check, in order, as a name and a function that says what it saw; a later one needs those
    before it.

    Each raises OSError, RuntimeError or ValueError, whose message says what is wrong.
    """
    yield "versions", _versions
    yield "device", lambda: _device(options.device)
    yield "memory", lambda: _memory(options)
    made: list[Sampler] = []

    def load() -> str:
        made.append(load_sampler(options))
        return f"{options.model}, latents {made[0].latent_shape}"

    yield "model", load
    yield "pictures", lambda: _pictures(made[0])
    yield "reward", lambda: _reward(made[0], reward_name, options)
    yield "denoiser's decisions", lambda: _decisions(made[0])


def _versions() -> str:
    known = {**versions(), "Python": platform.python_version()}
    return ", ".join(f"{name} {version}" for name, version in known.items())


def _device(name: str | None) -> str:
    device = check_device(name or str(default_device()))
    return f"{device}, {torch.get_num_threads()} of {os.cpu_count()} CPU threads"


def _memory(options: Sampling) -> str:
    """What the weights take, before they are loaded, and what there is."""
    counted = count_weights(options.model)
    if not counted:
        return f"{options.model} is not on this machine yet; hf download fetches it"
    device = check_device(options.device) or default_device()
    dtype = getattr(torch, options.dtype) if options.dtype else default_dtype(device)
    size = {name: number * dtype.itemsize / 1e9 for name, number in counted.items()}
    parts = ", ".join(f"{name} {gigabytes:.2f}" for name, gigabytes in size.items())
    free = get_max_memory().get(device.type if device.type in ("cpu", "mps") else device.index or 0)
    said = f"weights take {sum(size.values()):.2f} GB in {str(dtype).removeprefix('torch.')} ({parts})"
    if free is None:
        return said
    if sum(size.values()) > free / 1e9:
        raise PipelineError(f"{said}, but {device} has {free / 1e9:.1f} GB free; take a smaller --dtype")
    return f"{said}; {device} has {free / 1e9:.1f} GB free"


def _pictures(sampler: Sampler) -> str:
    if fault := try_out(sampler, PROMPT):
        raise PipelineError(fault)
    return f"of {type(sampler.pipeline.scheduler).__name__}, which their noise alone determines"


def _reward(sampler: Sampler, name: str, options: Sampling) -> str:
    began = time.perf_counter()
    reward = reward_for(name, options)
    loaded = time.perf_counter()
    check_pictures(sampler, name, "none")
    pictures = sampler(NoiseDistribution.standard(sampler.latent_shape).sample(3, seed=0), PROMPT)
    asked = time.perf_counter()
    values = ", ".join(f"{value:.3f}" for value in score(reward, pictures, [PROMPT] * 3).tolist())
    took = time.perf_counter() - asked
    return f"{name} gives {values}; loaded in {loaded - began:.1f} s, {took / 3:.2f} s a picture"


def _decisions(sampler: Sampler) -> str:
    try:
        policy = DenoiserPolicy(sampler)
    except PipelineError as error:
        return f"not to be tuned: {error}"
    made = collect_trajectories(policy, range(3), [PROMPT] * 3, range(len(policy.decisions)), seed=0)
    errors = []
    for step in made.interval:  # with gradient and in other batches, as learning does
        for i, prompt in enumerate(made.prompts):
            mean, std = policy(made.x[step, i : i + 1], step, [prompt])
            log_prob = gaussian_log_prob(made.x[step + 1, i : i + 1], mean, std).detach()
            errors.append(float((log_prob - made.log_prob[i : i + 1, step]).exp().sub(1).abs()))
    if max(errors) > SAME_RATIO:
        raise PipelineError(
            f"before any update the ratio of probabilities is off 1 by {max(errors):.1g}, which would "
            "swallow a clip range of 1e-4; try --dtype float32"
        )
    return f"tuned by diffalign tune; before any update the ratio is off 1 by {max(errors):.1g}"
