"""Pipelines, loaded by alias, folder or hub name, or from a single file."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import try_to_load_from_cache

from diffalign.diffusion.adapters import add_loras, add_textual_inversions
from diffalign.diffusion.additions import Additions
from diffalign.diffusion.cards import CARDS
from diffalign.diffusion.encoding import text_encoders
from diffalign.diffusion.pipeline import PipelineError, enable_tiling, with_ddim
from diffalign.diffusion.quiet import quietly
from diffalign.diffusion.single_file import from_single_file, is_single_file
from diffalign.settings.choices import unknown
from diffalign.settings.sampling import Scheduler
from diffalign.world import WORLD_MODELS

SCHEDULERS = get_args(Scheduler)
#: Pipelines whose decoder works in tiles alone.
TILED = ("AllegroPipeline",)


@quietly()
def load_pipeline(
    name: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    scheduler: str = "keep",
    config: str | Path | None = None,
    lora: Sequence[str | Path] = (),
    textual_inversion: Sequence[str | Path] = (),
    tiling: bool = False,
    offload: bool = False,
) -> DiffusionPipeline:
    """Loads a diffusers pipeline by alias, folder or hub name, or from a single file.

    Arguments:
        name: an alias of `list_models()`, a folder written by `save_pretrained`, a hub name, or a
            `.safetensors` file that holds a whole model.
        device: where it runs; the accelerator if there is one, by default.
        dtype: its precision; float32 on a CPU and float16 elsewhere, by default.
        scheduler: "keep" the pipeline's, or replace it by "ddim", which the papers use.
        config: of a single file, alias, folder or hub name of a pipeline of the same architecture, whose
            class, configuration, tokenizer and scheduler are taken; where the file lacks some network, all
            but the denoiser as well.
        lora: adapters to fuse into it: `.safetensors` files, folders or hub names, each with @SCALE if that
            is not 1.
        textual_inversion: tokens to add to it: likewise, each with @TOKEN if prompts should call it by
            another word than its file does.
        tiling: whether latents are decoded tile by tile, which takes less memory and blends the tiles' edges.
        offload: whether text encoders stay on the CPU; a `Sampler` moves them while it encodes a new prompt.

    Raises:
        PipelineError: if there is no such model, or the configuration, the scheduler, an adapter or a token
            does not fit it, or its decoder has no tiles.
    """
    if scheduler not in SCHEDULERS:
        raise PipelineError(unknown("scheduler", scheduler, SCHEDULERS))
    device = torch.device(device if device is not None else default_device())
    if dtype is None:
        dtype = default_dtype(device)
    elif dtype == torch.float16 and device.type == "cpu":
        warnings.warn("float16 is slow on a CPU; float32 is faster, and bfloat16 as small", stacklevel=3)
    if is_single_file(name):
        source = None if config is None else source_of(str(config))
        pipeline = from_single_file(Path(name), source, dtype, _from_pretrained)
    elif config is not None:
        raise PipelineError(
            f"{str(name)!r} has a configuration: --model-config (in Python config=) is of a single file alone"
        )
    else:
        pipeline = _from_pretrained(str(name), dtype)
    if scheduler == "ddim":
        pipeline = with_ddim(pipeline)
    pipeline.register_to_config(_name_or_path=str(name))  # the alias, not where this machine keeps it
    pipeline.set_progress_bar_config(disable=True)
    if tiling or any(base.__name__ in TILED for base in type(pipeline).__mro__):
        enable_tiling(pipeline)
    additions = Additions(None if config is None else str(config), _names(lora), _names(textual_inversion))
    add_textual_inversions(pipeline, additions.textual_inversion)
    add_loras(pipeline, additions.lora)
    additions.attach(pipeline)
    waiting = text_encoders(pipeline) if offload and hasattr(pipeline, "encode_prompt") else {}
    vars(pipeline).update(dict.fromkeys(waiting))  # what is away is not moved
    pipeline.to(device)
    vars(pipeline).update(waiting)
    return pipeline


def _names(given: Sequence[str | Path]) -> tuple[str, ...]:
    return (str(given),) if isinstance(given, str | Path) else tuple(map(str, given))


def source_of(name: str) -> str:
    """The folder or hub name of a model that is called by its alias, folder or hub name.

    Raises:
        PipelineError: if it is none of them.
    """
    source = str(CARDS[name].source) if name in CARDS else name
    local = Path(source).is_dir()
    if not local and source.startswith(("/", "./", "../", "~")):
        raise PipelineError(f"there is no folder {source}")
    if not local and "/" not in source:
        alternative = "the folder of a saved pipeline, or a hub name such as 'owner/model'"
        raise PipelineError(unknown("model", name, CARDS, alternative=alternative))
    if name in WORLD_MODELS and not local:
        raise PipelineError(f"the package lacks the embedded world's weights ({source}); reinstall diffalign")
    if local and not (Path(source) / "model_index.json").exists():
        raise PipelineError(f"{source} is no saved pipeline: it has no model_index.json")
    return source


def _from_pretrained(name: str, dtype: torch.dtype, **parts: Any) -> Any:
    """A saved pipeline, with `parts` instead of its own."""
    source = source_of(name)
    local = Path(source).is_dir()
    try:
        return DiffusionPipeline.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            variant=_variant(Path(source)) if local else None,
            **{**_parts_of_base(name, dtype), **parts},
        )
    except (OSError, ValueError) as error:
        if local and (pickled := _pickled(Path(source))):
            raise PipelineError(
                f"{source} holds pickled weights ({pickled}), which can run code and are not opened; where "
                "you trust them, convert them: DiffusionPipeline.from_pretrained(folder, "
                "use_safetensors=False).save_pretrained(another_folder)"
            ) from error
        if not local and try_to_load_from_cache(source, "model_index.json") is None:
            raise PipelineError(
                f"the model {name!r} is not on this machine, and could not be fetched; where there is a "
                f"network, `hf download {source}` fetches it"
            ) from error
        raise PipelineError(f"cannot load the model {name!r}: {error}") from error


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


def default_dtype(device: torch.device) -> torch.dtype:
    """Of a model on `device`, where none is asked for."""
    return torch.float32 if device.type == "cpu" else torch.float16


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
