"""A pipeline whose weights are in one file, as models are shared beside the hub."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError, safe_open

from diffalign.diffusion.faults import PICKLED, refuse_pickled, said
from diffalign.diffusion.pipeline import PipelineError

#: What diffusers raises where weights do not fit.
_FAULTS = (SingleFileComponentError, OSError, ValueError, RuntimeError, LookupError, TypeError)
_DENOISERS = ("unet", "transformer")


def is_single_file(name: str | Path) -> bool:
    """Whether a model of this name would be a file, and no folder or hub name."""
    return Path(name).suffix in (".safetensors", *PICKLED) and not Path(name).is_dir()


def from_single_file(path: Path, config: str | None, dtype: torch.dtype, load: Callable[..., Any]) -> Any:
    """The pipeline in a file; of one that lacks some network, the denoiser in it and the rest of `config`.

    Arguments:
        path: a `.safetensors` file.
        config: folder or hub name of a saved pipeline of the same architecture.
        dtype: its precision.
        load: loads `config` in a precision, with those parts that it is given.

    Raises:
        PipelineError: if there is no such file, it holds no model of the architecture, or the configuration
            is missing.
    """
    if not path.is_file():
        raise PipelineError(f"there is no file {path}; give a .safetensors file, a folder, or a hub name")
    refuse_pickled(path, "model")
    if config is None:
        raise PipelineError(
            f"{path} does not say of which architecture it is; name a pipeline of the same by alias, folder "
            "or hub name with --model-config (in Python config=), such as sd15 or sdxl"
        )
    try:
        index = DiffusionPipeline.load_config(config)
        kind = index["_class_name"]
    except (OSError, ValueError) as error:
        raise PipelineError(f"cannot load the configuration {config}: {error}") from error
    pipeline_class: Any = getattr(diffusers, str(kind), None)
    if not hasattr(pipeline_class, "from_single_file"):
        raise PipelineError(
            f"the configuration {config} is of a {kind}, which diffusers reads from no single file; give a "
            "folder or a hub name as the model"
        )
    try:
        with safe_open(path, "pt"):  # before diffusers, which would take it for a pickle
            pass
        try:
            pipeline = pipeline_class.from_single_file(str(path), config=config, dtype=dtype)
        except SingleFileComponentError:
            without = {part: None for part in index if part in _DENOISERS}
            rest = _networks(_load_rest(path, config, partial(load, config, dtype, **without)))
            pipeline = pipeline_class.from_single_file(str(path), config=config, dtype=dtype, **rest)
    except PipelineError:
        raise
    except SafetensorError as error:
        raise PipelineError(f"{path} is no safetensors file, or is cut off: {error}") from error
    except _FAULTS as error:
        raise PipelineError(
            f"{path} does not fit the configuration {config} ({said(error)}); give that of a pipeline of its "
            "architecture, and a file that holds a model"
        ) from error
    for part, network in _networks(pipeline).items():
        if any(weight.is_meta for weight in network.parameters()):
            raise PipelineError(f"{path} does not fit the configuration {config}: it lacks weights of {part}")
    return pipeline


def _load_rest(path: Path, config: str, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except PipelineError as error:
        raise PipelineError(
            f"{path} lacks some of the model's networks, and so does the configuration {config}: {error}"
        ) from error


def _networks(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {name: it for name, it in pipeline.components.items() if isinstance(it, torch.nn.Module)}
