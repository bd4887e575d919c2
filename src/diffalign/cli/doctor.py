"""`diffalign doctor`: does everything work here?"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.text import Text

from diffalign.settings.sampling import Dtype, Sampling, Scheduler

if TYPE_CHECKING:
    from diffalign.diffusion import Sampler

_PROMPT = "a dog on the grass"


def doctor(
    *,
    model: str = "world",
    reward: str | None = None,
    scheduler: Scheduler = "keep",
    device: str | None = None,
    dtype: Dtype | None = None,
) -> int:
    """Check that everything works here, and say what to do if not.

    Loads the model, makes three pictures in two steps, twice, and scores them; then makes the denoiser's
    decisions and asks for their probability again, which must be the same. Ends with OK and the exit
    code 0, or with what is wrong and 1.

        diffalign doctor
        diffalign doctor --model sd15 --device cuda
        diffalign doctor --reward image-reward        # says what is missing, and how to install it

    Args:
        model: The model: a name of `diffalign models`, the folder of a saved pipeline, or a hub name.
        reward: The reward: a name of `diffalign rewards`, or your own as my_module:my_function; world-clip
            for the world by default, and the size of the JPEG for other models.
        scheduler: Which scheduler samples: the pipeline's own (keep), or DDIM.
        device: Where the model runs, such as cpu or cuda:0; the accelerator, if there is one, by default.
        dtype: The model's precision; float32 on a CPU and float16 elsewhere by default.
    """
    from diffalign.cli.tables import stdout

    sampling = Sampling(model, num_steps=2, batch_size=3, scheduler=scheduler, device=device, dtype=dtype)
    reward = reward or ("world-clip" if model == "world" else "jpeg-compressibility")
    console, faults = stdout(), 0
    for name, check in _checks(sampling, reward):
        try:
            mark, said = Text("ok   ", style="green"), check()
        except (
            OSError,
            RuntimeError,
            ValueError,
        ) as error:  # what rooms and libraries raise when things fail
            mark, said = Text("FAULT", style="bold red"), str(error) or type(error).__name__
            faults += 1
        console.print(Text.assemble(mark, f" {name}: {said}"), soft_wrap=True)
        if faults:
            break
    console.print(Text("see the fault above", style="red") if faults else Text("OK", style="bold green"))
    return 1 if faults else 0


def _checks(options: Sampling, reward_name: str) -> Iterator[tuple[str, Callable[[], str]]]:
    """What to check, in order; a later one needs those before it."""
    yield "versions", _versions
    yield "device", lambda: _device(options.device)
    from diffalign.run.loading import load_sampler

    made: list[Sampler] = []

    def load() -> str:
        made.append(load_sampler(options))
        return f"{options.model}, latents {made[0].latent_shape}"

    yield "model", load
    yield "scheduler", lambda: _scheduler(made[0])
    yield "pictures", lambda: _pictures(made[0])
    yield "reward", lambda: _reward(made[0], reward_name, options)
    yield "denoiser's decisions", lambda: _decisions(made[0])


def _versions() -> str:
    from diffalign.files import versions

    return ", ".join(f"{name} {version}" for name, version in versions().items()) + (
        f", Python {platform.python_version()}"
    )


def _device(name: str | None) -> str:
    import torch

    from diffalign.run.loading import check_device

    if name is None and torch.accelerator.is_available():
        name = str(torch.accelerator.current_accelerator())
    device = check_device(name or "cpu")
    threads = torch.get_num_threads()
    return f"{device}, {threads} of {os.cpu_count()} CPU threads"


def _scheduler(sampler: Sampler) -> str:
    from diffalign.diffusion import PipelineError
    from diffalign.run.loading import unrepeatable

    if fault := unrepeatable(sampler):
        raise PipelineError(fault)
    return f"{type(sampler.pipeline.scheduler).__name__}, deterministic"


def _pictures(sampler: Sampler) -> str:
    from diffalign.diffusion import PipelineError
    from diffalign.policies.noise import NoiseDistribution

    x_T = NoiseDistribution.standard(sampler.latent_shape).sample(3, seed=0)
    first, second = sampler(x_T, _PROMPT), sampler(x_T, _PROMPT)
    if not first.isfinite().all():
        raise PipelineError("the pictures hold numbers that are not finite; try --dtype float32")
    difference = float((first - second).abs().max())
    if difference > 1e-3:
        raise PipelineError(f"the same noise gave two pictures that differ by {difference:.1g}")
    return f"{tuple(first.shape)}, the same noise twice differs by {difference:.1g}"


def _reward(sampler: Sampler, name: str, options: Sampling) -> str:
    from diffalign.policies.noise import NoiseDistribution
    from diffalign.rewards import score
    from diffalign.run.loading import check_pictures, reward_for

    began = time.perf_counter()
    reward = reward_for(name, options)
    loaded = time.perf_counter()
    check_pictures(sampler, name, "none")
    pictures = sampler(NoiseDistribution.standard(sampler.latent_shape).sample(3, seed=0), _PROMPT)
    asked = time.perf_counter()
    values = ", ".join(f"{value:.3f}" for value in score(reward, pictures, [_PROMPT] * 3).tolist())
    took = time.perf_counter() - asked
    return f"{name} gives {values}; loaded in {loaded - began:.1f} s, {took / 3:.2f} s a picture"


def _decisions(sampler: Sampler) -> str:
    from diffalign.diffusion import PipelineError
    from diffalign.diffusion.transition import gaussian_log_prob
    from diffalign.policies.denoiser import DenoiserPolicy
    from diffalign.rollout import collect_trajectories
    from diffalign.strategies import Branches

    try:
        policy = DenoiserPolicy(sampler, rank=4 if hasattr(sampler.pipeline, "load_lora_weights") else 0)
    except PipelineError as error:
        return f"not to be tuned: {error}"
    made = collect_trajectories(policy, range(3), [_PROMPT] * 3, range(2), Branches(), seed=0)
    errors = []
    for step in made.interval:  # with gradient and in other batches, as learning does
        for i, prompt in enumerate(made.prompts):
            mean, std = policy(made.x[step, i : i + 1], step, [prompt])
            log_prob = gaussian_log_prob(made.x[step + 1, i : i + 1], mean, std).detach()
            errors.append(float((log_prob - made.log_prob[i : i + 1, step]).exp().sub(1).abs()))
    if max(errors) > 5e-5:
        raise PipelineError(
            f"before any update the ratio of probabilities is off 1 by {max(errors):.1g}, which would "
            "swallow a clip range of 1e-4; try --dtype float32"
        )
    return f"tuned by diffalign tune; before any update the ratio is off 1 by {max(errors):.1g}"
