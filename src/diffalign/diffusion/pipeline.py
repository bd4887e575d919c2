"""A pipeline's denoiser, kind of scheduler and latent shape."""

import inspect
from copy import copy, deepcopy
from typing import Any, TypeVar

import torch
from diffusers import DDIMScheduler

from diffalign.diffusion.cards import CARDS
from diffalign.diffusion.protocol import Pipeline

#: Schedulers that add noise on the way, so that x_T alone does not determine the picture.
_STOCHASTIC = ("Ancestral", "SDE", "DDPM", "LCM", "TCD")
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


def is_deterministic(pipeline: Pipeline) -> bool:
    """Whether x_T alone determines the picture under the pipeline's scheduler (DDIM with η = 0)."""
    scheduler = pipeline.scheduler
    algorithm = str(getattr(scheduler.config, "algorithm_type", ""))  # such as "sde-dpmsolver++"
    return not algorithm.startswith("sde") and not any(
        word in type(scheduler).__name__ for word in _STOCHASTIC
    )


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


def takes_ddim(pipeline: Pipeline) -> bool:
    """Whether DDIM can follow the noise schedule and the predictions of the pipeline's scheduler."""
    own: Any = pipeline.scheduler
    if "beta_schedule" not in own.config or own.config.get("prediction_type", "epsilon") not in _PREDICTIONS:
        return False
    try:
        alphas = ddim_of(own).alphas_cumprod
    except NotImplementedError:  # of a kind of betas that it does not know
        return False
    # a scheduler may shift them, as CogVideoX's does
    return torch.allclose(alphas, getattr(own, "alphas_cumprod", alphas).to(alphas), atol=1e-6)


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
    timesteps = list(dict.fromkeys(scheduler.timesteps.round().long().tolist()))
    if max(timesteps) >= train:
        raise PipelineError(
            f"{name} with {num_steps} steps begins at step {max(timesteps)} of a schedule whose last is "
            f"{train - 1}; take fewer steps"
        )
    return timesteps


class _Captured(BaseException):
    """Ends a pipeline call once the shape of its latents is known."""

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape


def latent_shape(pipeline: Pipeline, **call: Any) -> tuple[int, ...]:
    """The shape of one initial latent, without the batch: `(C, H, W)`, video `(C, F, H, W)`.

    It is what the pipeline's `prepare_latents` returns, and so holds for every family.

    Arguments:
        call: the arguments of the pipeline's call that change the shape (`height`, `num_frames` …).

    Raises:
        PipelineError: if the pipeline takes or prepares no latents, or its call fails before it does.
    """
    prepare = getattr(pipeline, "prepare_latents", None)
    parameters = inspect.signature(type(pipeline).__call__).parameters
    # some that take none swallow them among **kwargs, such as image to image
    if prepare is None or ("num_inference_steps" in parameters and "latents" not in parameters):
        raise PipelineError(f"{type(pipeline).__name__} takes no latents=, so its noise cannot be learned")

    def spy(*args: Any, **kwargs: Any) -> None:
        prepared = prepare(*args, **kwargs)
        raise _Captured((prepared[0] if isinstance(prepared, tuple) else prepared).shape)

    vars(pipeline)["prepare_latents"] = spy  # of the object, where it hides the class's method
    try:
        with torch.no_grad():
            pipeline(prompt="a", num_inference_steps=2, output_type="latent", **call)
    except _Captured as captured:
        return tuple(captured.shape[1:])
    except (TypeError, ValueError, AttributeError) as error:
        given, said = ", ".join(sorted(call)) or "nothing else", str(error).partition("\n")[0].rstrip(".")
        raise PipelineError(
            f"{type(pipeline).__name__} cannot be called with a prompt and {given} ({said}); "
            "arguments of its call are given as --call name=value, in Python as call={...}"
        ) from error
    finally:
        del vars(pipeline)["prepare_latents"]
    raise PipelineError(f"{type(pipeline).__name__} prepared no latents")
