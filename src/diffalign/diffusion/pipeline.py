"""Loading pipelines; a pipeline's denoiser, fingerprint, kind of scheduler and latent shape."""

import hashlib
import inspect
import json
from copy import copy, deepcopy
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from diffalign.diffusion.cards import CARDS
from diffalign.diffusion.protocol import Pipeline
from diffalign.settings.choices import unknown
from diffalign.settings.sampling import Scheduler
from diffalign.world import WORLD_MODELS

SCHEDULERS = get_args(Scheduler)
_FINGERPRINT_DIGITS = 12  # 48 bits, so that two models hardly ever share them
_FINGERPRINT_VALUES = 64  # of each tensor, evenly spaced: enough to tell weights apart, fast to read
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


def load_pipeline(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    scheduler: str = "keep",
) -> DiffusionPipeline:
    """Loads a diffusers pipeline by alias, folder or hub name.

    Arguments:
        name: an alias of `list_models()`, a folder written by `save_pretrained`, or a hub name.
        device: where it runs; the accelerator if there is one, by default.
        dtype: its precision; float32 on a CPU and float16 elsewhere, by default.
        scheduler: "keep" the pipeline's, or replace it by "ddim", which the papers use.

    Raises:
        PipelineError: if there is no such model, or the scheduler does not fit it.
    """
    if scheduler not in SCHEDULERS:
        raise PipelineError(unknown("scheduler", scheduler, SCHEDULERS))
    device = torch.device(device if device is not None else default_device())
    if dtype is None:
        dtype = torch.float32 if device.type == "cpu" else torch.float16
    source = str(CARDS[str(name)].source) if str(name) in CARDS else str(name)
    local = Path(source).is_dir()
    if not local and "/" not in source:
        alternative = "the folder of a saved pipeline, or a hub name such as 'owner/model'"
        raise PipelineError(unknown("model", str(name), CARDS, alternative=alternative))
    if str(name) in WORLD_MODELS and not local:
        raise PipelineError(f"the package lacks the embedded world's weights ({source}); reinstall diffalign")
    if local and not (Path(source) / "model_index.json").exists():
        raise PipelineError(f"{source} is no saved pipeline: it has no model_index.json")
    try:
        pipeline = DiffusionPipeline.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            variant=_variant(Path(source)) if local else None,
            **_parts_of_base(str(name), dtype),
        )
    except (OSError, ValueError) as error:
        if local and (pickled := _pickled(Path(source))):
            raise PipelineError(
                f"{source} holds pickled weights ({pickled}), which can run code and are not opened; where "
                "you trust them, convert them: DiffusionPipeline.from_pretrained(folder, "
                "use_safetensors=False).save_pretrained(another_folder)"
            ) from error
        raise PipelineError(f"cannot load the model {str(name)!r}: {error}") from error
    if scheduler == "ddim":
        pipeline = with_ddim(pipeline)
    pipeline.register_to_config(_name_or_path=str(name))  # the alias, not where this machine keeps it
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _parts_of_base(name: str, dtype: torch.dtype) -> dict[str, Any]:
    """Of the pipeline that the card of `name` builds on, the parts that its own folder lacks."""
    card = CARDS.get(name)
    if card is None or card.base is None:
        return {}
    base = DiffusionPipeline.from_pretrained(card.base, dtype=dtype, use_safetensors=True)
    own = Path(card.source)
    return {part: module for part, module in base.components.items() if not (own / part).is_dir()}


def _variant(folder: Path) -> str | None:
    """ "fp16" of a saved pipeline a part of which has weights of that name alone."""
    parts = [[file.name for file in part.glob("*.safetensors")] for part in folder.iterdir()]
    return "fp16" if any(names and all(".fp16." in name for name in names) for names in parts) else None


def _pickled(folder: Path) -> str | None:
    """A file of a part whose weights are pickled alone, if there is one."""
    files = (file for kind in ("*/*.bin", "*/*.ckpt", "*/*.pt") for file in sorted(folder.glob(kind)))
    return next((str(f.relative_to(folder)) for f in files if not any(f.parent.glob("*.safetensors"))), None)


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")


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


def fingerprint(pipeline: Pipeline) -> str:
    """Twelve hexadecimal digits that identify the denoiser: its configuration and a sample of its weights."""
    module = denoiser(pipeline)
    digest = hashlib.sha256(type(module).__name__.encode())
    for name, parameter in sorted(module.state_dict().items()):
        values = parameter.detach().flatten()
        step = max(1, values.numel() // _FINGERPRINT_VALUES)
        sample = values[::step][:_FINGERPRINT_VALUES].float().cpu()
        digest.update(json.dumps([name, list(parameter.shape)]).encode())
        digest.update(sample.half().numpy().tobytes())
    return digest.hexdigest()[:_FINGERPRINT_DIGITS]


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
