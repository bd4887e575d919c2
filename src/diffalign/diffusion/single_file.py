"""A pipeline whose weights are in one file, as models are shared beside the hub."""

import re
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from safetensors import SafetensorError, safe_open

from diffalign.diffusion.pipeline import PipelineError

_PICKLED = (".ckpt", ".pt", ".pth", ".bin")


def is_single_file(name: str | Path) -> bool:
    """Whether a model of this name would be a file, and no folder or hub name."""
    return Path(name).suffix in (".safetensors", *_PICKLED) and not Path(name).is_dir()


def from_single_file(path: Path, config: str | None, dtype: torch.dtype) -> Any:
    """The pipeline in a file.

    Arguments:
        path: a `.safetensors` file that holds a whole model.
        config: folder or hub name of a saved pipeline of the same architecture.
        dtype: its precision.

    Raises:
        PipelineError: if there is no such file, it holds no model of the architecture, or the configuration
            is missing.
    """
    if not path.is_file():
        raise PipelineError(f"there is no file {path}; give a .safetensors file, a folder, or a hub name")
    if path.suffix in _PICKLED:
        raise PipelineError(
            f"{path} is pickled, which can run code, and is not opened; where you trust it, convert it to "
            ".safetensors"
        )
    if config is None:
        raise PipelineError(
            f"{path} does not say of which architecture it is; name a pipeline of the same by alias, folder "
            "or hub name with --model-config (in Python config=), such as sd15 or sdxl"
        )
    try:
        kind = DiffusionPipeline.load_config(config)["_class_name"]
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
        pipeline = pipeline_class.from_single_file(str(path), config=config, dtype=dtype)
    except SafetensorError as error:
        raise PipelineError(f"{path} is no safetensors file, or is cut off: {error}") from error
    except (SingleFileComponentError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        fault = re.split(r"\.\s|\n", str(error).strip())[0].rstrip(".")
        raise PipelineError(
            f"{path} does not fit the configuration {config} ({fault}); give that of a pipeline of its "
            "architecture, and a file that holds a whole model"
        ) from error
    for part, network in pipeline.components.items():
        if isinstance(network, torch.nn.Module) and any(weight.is_meta for weight in network.parameters()):
            raise PipelineError(f"{path} does not fit the configuration {config}: it lacks weights of {part}")
    return pipeline
