"""LoRA adapters and textual inversions that a model is loaded with.

An adapter is fused: W ← W + scale·ΔW, so that pictures cost no more and another one can be learned on top.
"""

import math
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusers.loaders.textual_inversion import load_textual_inversion_state_dicts
from diffusers.utils.peft_utils import set_weights_and_activate_adapters
from safetensors import SafetensorError
from torch import Tensor

from diffalign.diffusion.faults import refuse_pickled, said
from diffalign.diffusion.fingerprint import fingerprint, remember
from diffalign.diffusion.pipeline import PipelineError

#: What reading weights that do not fit raises in diffusers, transformers and PEFT.
_FAULTS = (OSError, ValueError, RuntimeError, LookupError, AttributeError, TypeError, SafetensorError)
_HUB = re.compile(r"(?P<name>\w[\w.-]*/[\w.-]+)(/(?P<file>.+\.safetensors))?")
#: Of a textual inversion whose file names no token.
_NAMELESS = "emb_params"
#: The tensors of one for SDXL, and the numbers of the text encoders that they are for.
_SDXL = {"clip_l": "", "clip_g": "_2"}


def add_loras(pipeline: Any, loras: Sequence[str]) -> None:
    """Fuses adapters into a pipeline's networks.

    Arguments:
        loras: `.safetensors` files, folders, hub names, or hub names with a file (owner/model/file), each
            with @SCALE if that is not 1.

    Raises:
        PipelineError: if there is no such adapter, it does not fit, or the pipeline takes none.
    """
    if not loras:
        return
    kind = type(pipeline).__name__
    if not (hasattr(pipeline, "load_lora_weights") and hasattr(pipeline, "fuse_lora")):
        raise PipelineError(f"diffusers puts no LoRA adapter on a {kind}; leave out --lora")
    # diffusers' own names, so that the fingerprint is that of a plain pipeline.load_lora_weights(...)
    names, scales = [f"default_{number}" for number in range(len(loras))], list[float]()
    for lora, name in zip(loras, names, strict=True):
        source, scale = split_scale(lora)
        scales.append(scale)
        place, given = _found(source, "adapter")
        try:
            with warnings.catch_warnings():  # PEFT's of a second adapter
                warnings.filterwarnings("ignore", "Already found a `peft_config`")
                pipeline.load_lora_weights(place, adapter_name=name, use_safetensors=True, **given)
        except _FAULTS as error:
            raise PipelineError(
                f"cannot put the adapter {source} on this {kind} ({_fault(error)}); it must be of a model of "
                "the same architecture"
            ) from error
        if not any(name in loaded for loaded in pipeline.get_list_adapters().values()):
            raise PipelineError(
                f"the adapter {source} has no weights for this {kind}; it must be of a model of the same "
                "architecture"
            )
    for part in pipeline.get_list_adapters():  # whose set_adapters fails at the world's UNet
        set_weights_and_activate_adapters(getattr(pipeline, part), names, scales)
    before = fingerprint(pipeline)
    pipeline.fuse_lora(components=list(pipeline.get_list_adapters()), adapter_names=names)
    pipeline.unload_lora_weights()
    remember(pipeline, before)


def split_scale(lora: str) -> tuple[str, float]:
    """An adapter's name, and the scale that stands behind an @, or 1.

    Raises:
        PipelineError: if the scale is no finite number.
    """
    source, at, tail = lora.rpartition("@")
    try:
        scale = float(tail)
    except ValueError:
        return lora, 1.0
    if not at or not source or Path(lora).exists():
        return lora, 1.0
    if not math.isfinite(scale):
        raise PipelineError(f"the scale of an adapter must be a finite number, not {tail} ({lora})")
    return source, scale


def add_textual_inversions(pipeline: Any, inversions: Sequence[str]) -> None:
    """Adds tokens to a pipeline's tokenizer, and what they mean to its text encoder.

    Arguments:
        inversions: `.safetensors` files, folders, hub names, or hub names with a file, each with @TOKEN if
            prompts should call it by another word than its file does. A file that has none is called by its
            own name.

    Raises:
        PipelineError: if there is no such file, it does not fit, or the pipeline takes none.
    """
    kind = type(pipeline).__name__
    if inversions and not hasattr(pipeline, "load_textual_inversion"):
        raise PipelineError(f"diffusers adds no textual inversion to a {kind}; leave out --textual-inversion")
    for inversion in inversions:
        source, at, token = inversion.rpartition("@")
        if not at or not source or Path(inversion).exists():
            source, token = inversion, ""
        place, given = _found(source, "textual inversion")
        try:
            (tensors,) = load_textual_inversion_state_dicts([place], use_safetensors=True, **given)
            for word, tensor, number in _read(tensors, Path(source).stem):
                pipeline.load_textual_inversion(
                    tensor,
                    token=token or word,
                    tokenizer=getattr(pipeline, f"tokenizer{number}"),
                    text_encoder=getattr(pipeline, f"text_encoder{number}"),
                )
        except _FAULTS as error:
            raise PipelineError(
                f"cannot add the textual inversion {source} to this {kind} ({_fault(error)}); it must be of "
                "a model with the same text encoder, and its token new"
            ) from error


def _read(tensors: dict[str, Tensor], stem: str) -> list[tuple[str, Tensor, str]]:
    """The token of each tensor of a file, and the number of its text encoder."""
    if set(tensors) == set(_SDXL):
        return [(stem, tensors[name], number) for name, number in _SDXL.items()]
    if len(tensors) != 1:
        raise ValueError(f"it holds {len(tensors)} tensors ({', '.join(list(tensors)[:3])} …), not one")
    ((word, tensor),) = tensors.items()
    return [(stem if word == _NAMELESS else word, tensor, "")]


def _found(source: str, what: str) -> tuple[str, dict[str, str]]:
    """A file, folder or hub name, and how diffusers is given a file of the latter."""
    refuse_pickled(source, what)
    if Path(source).exists():
        return source, {}
    hub = _HUB.fullmatch(source)
    if hub is None or hub["name"].endswith(".safetensors"):
        raise PipelineError(f"there is no {what} {source}; give a .safetensors file, a folder, or a hub name")
    return hub["name"], {"weight_name": hub["file"]} if hub["file"] else {}


def _fault(error: Exception) -> str:
    plain = isinstance(error, OSError | ValueError | RuntimeError)
    return said(error) if plain else f"{type(error).__name__} {said(error)}"
