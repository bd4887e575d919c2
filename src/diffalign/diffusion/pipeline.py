"""A pipeline's denoiser and kind of scheduler."""

import inspect
from contextlib import suppress
from copy import copy, deepcopy
from typing import Any, TypeVar

import torch
from diffusers import DDIMScheduler

from diffalign.diffusion.cards import CARDS
from diffalign.diffusion.protocol import Pipeline

#: What a denoiser predicts where DDIM samples; not flow_prediction.
_PREDICTIONS = "epsilon", "v_prediction", "sample"
P = TypeVar("P", bound=Pipeline)


class PipelineError(ValueError):
    """A pipeline cannot be loaded, or cannot be used by a noise policy."""


def list_models() -> dict[str, str]:
    """The models known by an alias: alias → description."""
    return {alias: card.description for alias, card in CARDS.items()}


def denoiser_name(pipeline: Pipeline) -> str:
    """The attribute that holds the pipeline's denoiser."""
    return "unet" if hasattr(pipeline, "unet") else "transformer"


def denoiser(pipeline: Pipeline) -> torch.nn.Module:
    """The pipeline's UNet or transformer; raises a `PipelineError` if it has neither."""
    module = getattr(pipeline, denoiser_name(pipeline), None)
    if not isinstance(module, torch.nn.Module):
        raise PipelineError(f"{type(pipeline).__name__} has neither a unet nor a transformer")
    return module


def autoencoder(pipeline: Pipeline) -> Any:
    """What decodes the pipeline's latents, such as its VAE; None if nothing does."""
    return getattr(pipeline, "vae", None) or getattr(pipeline, "movq", None)


def enable_tiling(pipeline: Pipeline) -> None:
    """Lets a pipeline decode tile by tile, and if it can one sample after the other, in less memory.

    Raises:
        PipelineError: if its decoder has no tiles.
    """
    decoder = autoencoder(pipeline)
    try:
        decoder.enable_tiling()
    except (AttributeError, NotImplementedError) as error:
        raise PipelineError(
            f"{type(pipeline).__name__} cannot decode in tiles, which its {type(decoder).__name__} does not "
            "know; leave out --tiling"
        ) from error
    with suppress(AttributeError, NotImplementedError):
        decoder.enable_slicing()


def is_tiled(pipeline: Pipeline) -> bool:
    """Whether a pipeline decodes tile by tile, which blends their edges."""
    return bool(getattr(autoencoder(pipeline), "use_tiling", False))


def with_ddim(pipeline: P) -> P:
    """A pipeline of the same components that samples with DDIM; `pipeline` stays as it is.

    Raises:
        PipelineError: if DDIM cannot follow its noise schedule.
    """
    if not takes_ddim(pipeline):
        raise PipelineError(
            f"the model samples with {type(pipeline.scheduler).__name__}, whose noise schedule DDIM cannot "
            "follow; use --scheduler keep"
        )
    other = copy(pipeline)
    other.scheduler = ddim_of(pipeline.scheduler)
    return other


def ddim_of(scheduler: Any, **changes: Any) -> DDIMScheduler:
    """DDIM of a scheduler's configuration with `changes`; latents are clipped only where they were.

    `from_config` would take DDIM's own defaults, such as its betas, for what the scheduler has by default.
    """
    known = inspect.signature(DDIMScheduler.__init__).parameters
    config = {name: value for name, value in scheduler.config.items() if name in known}
    return DDIMScheduler(**{"clip_sample": False, **config, **changes})


def follows_betas(scheduler: Any) -> bool:
    """Whether a scheduler's latents are √ᾱ x_0 + √(1 − ᾱ) ε of betas and predictions that DDIM knows too."""
    config = scheduler.config
    if "beta_schedule" not in config or config.get("prediction_type", "epsilon") not in _PREDICTIONS:
        return False
    try:
        ddim_of(scheduler)
    except NotImplementedError:  # of a kind of betas that it does not know
        return False
    return True


def takes_ddim(pipeline: Pipeline) -> bool:
    """Whether DDIM can follow the noise schedule and the predictions of the pipeline's scheduler."""
    own: Any = pipeline.scheduler
    if not follows_betas(own):
        return False
    alphas = ddim_of(own).alphas_cumprod
    # a scheduler may shift them, as CogVideoX's does
    return torch.allclose(alphas, getattr(own, "alphas_cumprod", alphas).to(alphas), atol=1e-6)


def whole_timesteps(scheduler: Any) -> list[int]:
    """The timesteps that are set, each once and whole, from the noise."""
    return list(dict.fromkeys(scheduler.timesteps.round().long().tolist()))


def own_timesteps(pipeline: Pipeline, num_steps: int) -> list[int]:
    """The timesteps that the pipeline's scheduler visits, each once and whole, from the noise.

    Raises:
        PipelineError: if it cannot take as many steps.
    """
    scheduler: Any = deepcopy(pipeline.scheduler)  # its state is the pipeline's
    name, train = type(scheduler).__name__, scheduler.config.num_train_timesteps
    try:
        scheduler.set_timesteps(num_steps)
    except (ValueError, IndexError) as error:
        raise PipelineError(f"{name} takes no {num_steps} steps: {error}") from error
    timesteps = whole_timesteps(scheduler)
    if max(timesteps) >= train:
        raise PipelineError(
            f"{name} with {num_steps} steps begins at step {max(timesteps)} of a schedule whose last is "
            f"{train - 1}; take fewer steps"
        )
    return timesteps
