"""The ground: names of files, writes that are whole or did not happen, and tensors with a checksum.

Every file is written beside its place and moved there, so that a kill leaves the old one or the new one.
Tensors are safetensors whose header holds strings, among them the format and a checksum of all the rest:
safetensors itself would load a flipped bit without a word. Nothing is unpickled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

CONFIG, METRICS, STATE = "config.yaml", "metrics.jsonl", "state.safetensors"
NOISE, GENERATOR, NOISES = "noise.safetensors", "generator.safetensors", "noises.safetensors"
SUMMARY, REPORT, EVALUATION = "summary.json", "report.html", "evaluation.json"
BEFORE_AFTER, CURVE, BEST = "before_after.png", "reward_curve.png", "best.png"
ROWS, COMPARISON, CHART = "comparison.jsonl", "comparison.json", "comparison.png"
LORA, DENOISER, CHECKPOINTS, LOGS = "lora", "denoiser", "checkpoints", "logs"
VALIDATION = "validation"
PICTURES, FROZEN, PROMPT = "pictures", "frozen", "prompt.txt"
#: What was learned: weights are folders, the others files.
WEIGHTS = (LORA, DENOISER)
LEARNED = (*WEIGHTS, GENERATOR, NOISES, NOISE)
#: What a finished run shows its user, in this order, if it is there …
OUTPUTS = (
    *(NOISE, GENERATOR, LORA, DENOISER, BEST, PICTURES, NOISES),
    *(BEFORE_AFTER, CURVE, SUMMARY, METRICS, REPORT),
)
#: … and all that only a run or a comparison writes; among the pictures may be some of others.
WRITTEN = {*OUTPUTS, CONFIG, STATE, EVALUATION, ROWS, COMPARISON, CHART, CHECKPOINTS, LOGS, VALIDATION}
WRITTEN -= {PICTURES}
#: Among pictures, what `generate` writes.
MADE = re.compile(r"seed-?\d+-(\d{3,}|grid)\.(png|gif|mp4)|" + re.escape(PROMPT))
PARTIAL = ".partial"
LEFTOVERS = ".tmp??????"  # what safetensors' own writer leaves when it is killed
_DTYPES = {torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.bool}
_DTYPES |= {torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8}
_FORMAT, _CHECKSUM = "format", "checksum"


class ArtifactError(ValueError):
    """An artefact is missing, corrupt, or does not belong to what it is used with."""


class WriteError(ArtifactError):
    """A file could not be written: the disk is full, or the folder is not ours. What was there is intact."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file to write, which takes the place of `path` when the block ends well."""
    partial, old = path.with_name(path.name + PARTIAL), path.with_name(path.name + PARTIAL + PARTIAL)
    try:
        yield partial
        for file in (partial, *partial.rglob("*")):
            _as_umask_says(file)
        if partial.is_dir():
            if path.exists():  # moved away whole, so that no half of it is ever there
                _remove(old)
                os.replace(path, old)
        else:
            with partial.open("rb") as whole:
                os.fsync(whole.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        if not path.parent.is_dir():
            raise WriteError(f"cannot write {path}: its folder is gone") from error
        raise WriteError(
            f"cannot write {path}: {error}; nothing that was there is lost, free some space or make the "
            "folder writable"
        ) from error
    finally:  # after Ctrl-C too
        _remove(partial)
        _remove(old)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A partial folder to fill, which takes the place of `path` when the block ends well."""
    with replacing(path) as partial:
        _remove(partial)
        partial.mkdir(parents=True)
        yield partial


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _as_umask_says(path: Path) -> None:
    """Gives a file the mode that a plain `open` would, as safetensors' writer makes it private."""
    if path.is_file():
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes a JSON file, indented."""
    with replacing(path) as file:
        file.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str], format: str) -> None:
    """Writes what `load_tensors` reads.

    Arguments:
        header: strings that stand beside the tensors.
        format: what the file is, such as "diffalign.noise/2".
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    strings = {**header, _FORMAT: format}
    with replacing(path) as file:
        save_file(whole, file, {**strings, _CHECKSUM: checksum(whole, strings)})


def load_tensors(path: Path, format: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the header that `save_tensors` wrote.

    Arguments:
        format: that the file must have; any if None.

    Raises:
        ArtifactError: if there is no such file, it is of another format, damaged, or holds values that
            are no numbers.
    """
    if not path.is_file():
        kind = (format or "diffalign.safetensors/").removeprefix("diffalign.").partition("/")[0]
        raise ArtifactError(f"there is no {kind} file {path}")
    try:
        with safe_open(path, "pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        raise ArtifactError(
            f"{path} is corrupt, truncated or no safetensors file (pickles are never read): {error}"
        ) from error
    if format is not None and header.get(_FORMAT) != format:
        raise ArtifactError(
            f"{path} is a safetensors file of the format {header.get(_FORMAT)!r}, not {format!r}"
        )
    expected = header.pop(_CHECKSUM, None)
    if checksum(tensors, header) != expected:
        raise ArtifactError(
            f"{path} is corrupt: its content does not match its checksum {expected}; what a run learned is "
            "written again by --resume"
        )
    if odd := [name for name, tensor in tensors.items() if tensor.dtype not in _DTYPES]:
        raise ArtifactError(f"{path} holds tensors of a type that nothing here has: {', '.join(odd)}")
    if bad := [name for name, tensor in tensors.items() if not tensor.isfinite().all()]:
        raise ArtifactError(
            f"{path} holds values that are no numbers ({', '.join(bad)}); learn again with a lower learning "
            "rate, or in float32"
        )
    header.pop(_FORMAT, None)
    return tensors, header


def read_header(path: Path) -> dict[str, str]:
    """The header of a file of tensors, which may be large, without reading them; empty if there is none."""
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError):
        return {}


def checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes and values of tensors on the CPU, and of a header; hexadecimal."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


#: The libraries that determine a result.
LIBRARIES: Final = ("diffalign", "torch", "diffusers", "transformers")


def versions() -> dict[str, str]:
    """Versions of the libraries that determine a result."""
    return {name: version(name) for name in LIBRARIES}
