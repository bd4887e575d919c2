"""What a model's weights take, read from the headers of their files; and weights that were learned."""

from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from diffalign.diffusion.cards import CARDS
from diffalign.diffusion.loading import source_of
from diffalign.diffusion.pipeline import PipelineError
from diffalign.diffusion.single_file import is_single_file

SINGLE = "model"  # what a whole model in one file counts as


def count_weights(model: str) -> dict[str, int]:
    """Part → how many numbers its weights are; empty for a hub model that is not on this machine.

    Raises:
        PipelineError: if there is no such model, or a file of it is damaged.
    """
    if is_single_file(model):
        return {SINGLE: sum(_of_file(Path(model)))} if Path(model).exists() else {}
    source, card = source_of(model), CARDS.get(model)
    if not Path(source).is_dir():
        try:
            source = snapshot_download(source, local_files_only=True)
        except LocalEntryNotFoundError:
            return {}
    base = {} if card is None or card.base is None else _of_folder(card.base)
    return {**base, **_of_folder(Path(source))}


def read_weights(*files: Path) -> dict[str, Tensor]:
    """The tensors of `.safetensors` files.

    Raises:
        OSError, SafetensorError: if one is not there, or is damaged.
        ValueError: if there are no tensors, or one is not of real numbers.
    """
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    if not tensors or not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise ValueError("they are no weights, or there are none")
    return tensors


def _of_file(file: Path) -> Iterator[int]:
    try:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118
                yield torch.Size(opened.get_slice(name).get_shape()).numel()
    except SafetensorError as error:
        raise PipelineError(f"{file} is no safetensors file, or is cut off: {error}") from error


def _of_folder(folder: Path) -> dict[str, int]:
    """Of the parts that `model_index.json` names, each in one variant."""
    index, counted = (folder / "model_index.json").read_text("utf-8"), dict[str, int]()
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and f'"{path.name}"' in index):
        files = list(part.glob("*.safetensors"))
        whole = [file for file in files if ".fp16." not in file.name] or files
        if whole:
            counted[part.name] = sum(sum(_of_file(file)) for file in whole)
    return counted
