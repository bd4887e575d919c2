"""ARTEFACT: the folder that a run leaves on disk.

    config.yaml         what was asked for (written first)
    metrics.jsonl       one line an update
    state.safetensors   what --resume needs (written every few seconds)
    noise.safetensors, before_after.png, reward_curve.png, summary.json, report.html   (at the end)

A search's folder holds config.yaml, noises.safetensors, best.png and summary.json.
Every file is written beside its place and moved there, so that a kill leaves the old one or the
new one; metrics of updates that the saved state has not seen are dropped when a run resumes.
Who writes holds `.lock`, which the kernel lets go of when he dies.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from importlib import import_module
from importlib.metadata import version
from numbers import Real
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffalign.policies.noise import ArtifactError

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # on Windows nobody is locked out
    fcntl = None

LOCK = ".lock"
CONFIG, METRICS, STATE = "config.yaml", "metrics.jsonl", "state.safetensors"
NOISE, SUMMARY, REPORT = "noise.safetensors", "summary.json", "report.html"
GENERATOR = "generator.safetensors"
BEFORE_AFTER, CURVE = "before_after.png", "reward_curve.png"
NOISES, BEST = "noises.safetensors", "best.png"
EVALUATION, COMPARISON = "evaluation.json", "comparison.jsonl"
PICTURES, FROZEN = "pictures", "frozen"
#: All that a run or a search writes, and `evaluate` beside it, and so all that --overwrite removes …
FILES = (
    *(CONFIG, METRICS, STATE, NOISE, GENERATOR, SUMMARY, REPORT),
    *(BEFORE_AFTER, CURVE, NOISES, BEST, EVALUATION),
)
LORA, DENOISER, CHECKPOINTS, LOGS = "lora", "denoiser", "checkpoints", "logs"
FOLDERS = (LORA, DENOISER, CHECKPOINTS, LOGS)  # of a tuning run: removed likewise
_EVALUATED = re.compile(r"evaluation-.+\.json")  # … of a generator, a file a prompt …
_MADE = re.compile(r"seed-?\d+-(\d{3,}|grid)\.png|prompt\.txt")  # … with these of `generate`
_PARTIAL = ".partial"
#: What the run and its report read of a line of the metrics.
_READ = {"step": int, "queries": int, "rewards": list, "seconds": Real}
_MEND = "mend or delete the line: only the reward curve and the seconds need it"


class WriteError(ArtifactError):
    """A file could not be written: the disk is full, or the folder is not ours. What was there is intact."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A partial file to write, which takes the place of `path` when the block ends well.

    Raises:
        WriteError: if the disk is full or the folder cannot be written.
    """
    partial = path.with_name(path.name + _PARTIAL)
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise WriteError(
            f"cannot write {path}: {error}; nothing that was there is lost, free some space or make the "
            "folder writable"
        ) from error
    finally:  # after Ctrl-C too
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A partial folder to fill, which takes the place of `path` when the block ends well.

    Raises:
        WriteError: if the disk is full or the folder cannot be written.
    """
    partial = path.with_name(path.name + _PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise WriteError(
            f"cannot write {path}: {error}; free some space or make the folder writable"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class RunFolder:
    """A run's folder. Make one with `create` or `resume`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @staticmethod
    def check(path: Path, overwrite: bool = False) -> None:
        """Checks that `create` may start a run in `path`; changes nothing.

        Raises:
            ArtifactError: if the folder holds another run (and not `overwrite`), or other files.
        """
        if path.exists() and not path.is_dir():
            raise ArtifactError(f"{path} is a file; give a folder with --out")
        inside = {file.name for file in path.iterdir()} if path.is_dir() else set()
        if inside <= {LOCK, CONFIG + _PARTIAL}:  # at most what a kill leaves before a run has begun
            return
        if CONFIG not in inside:
            raise ArtifactError(
                f"{path} holds files that are not a run; give an empty or new folder with --out"
            )
        if not overwrite:
            raise ArtifactError(
                f"{path} holds another run; go on with it (--resume), replace it (--overwrite), "
                "or give another folder (--out)"
            )

    @classmethod
    def create(cls, path: Path, config: Any, *, overwrite: bool = False) -> RunFolder:
        """Starts a run in an empty or new folder and writes its configuration.

        Raises:
            ArtifactError: if `check` says no, or another process runs there.
        """
        cls.check(path, overwrite)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"cannot make the folder {path}: {error}") from error
        folder = cls(path)
        with folder.lock():
            cls.check(path, overwrite)  # another may have begun meanwhile
            # the configuration is replaced below: without it the folder would be no run
            old = [file for file in path.iterdir() if _written(_of(file)) and file.name != CONFIG]
            for tree in (path / name for name in FOLDERS):
                shutil.rmtree(tree, ignore_errors=True)
            for file in [
                *old,
                *(
                    file
                    for folder in (PICTURES, FROZEN)
                    for file in path.glob(f"{folder}/**/*")
                    if _MADE.fullmatch(_of(file))
                ),
            ]:
                file.unlink()
            with replacing(path / CONFIG) as file:
                file.write_text(yaml.safe_dump(_plain(config), sort_keys=False))
        return folder

    @classmethod
    def resume(cls, path: Path) -> RunFolder:
        """Opens the folder of a run that was begun.

        Raises:
            ArtifactError: if there is none.
        """
        if not (path / CONFIG).is_file():
            raise ArtifactError(f"there is no run to resume in {path}: it has no {CONFIG}")
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing a run to the folder, as long as the block lasts.

        Raises:
            ArtifactError: if another process has locked it.
        """
        if fcntl is None:
            yield
            return
        path = self.path / LOCK
        descriptor = _locked(path)
        try:
            yield
        finally:
            if descriptor is not None:
                with suppress(OSError):  # before it is let go of: then it may be another's
                    path.unlink()
                os.close(descriptor)

    def config(self) -> dict[str, Any]:
        """What was asked for.

        Raises:
            ArtifactError: if the file is corrupt.
        """
        try:
            loaded = yaml.safe_load((self.path / CONFIG).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ArtifactError(f"{self.path / CONFIG} is corrupt: {error}") from error
        if not isinstance(loaded, dict):
            raise ArtifactError(f"{self.path / CONFIG} is corrupt: it holds no settings")
        return loaded

    def save_state(self, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
        """Writes what `load_state` reads."""
        with replacing(self.path / STATE) as file:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file, dict(metadata))

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The last state saved, or None if the run ended before there was one.

        Raises:
            ArtifactError: if the file is corrupt.
        """
        path = self.path / STATE
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
            return load_file(path), metadata
        except (SafetensorError, OSError) as error:
            raise ArtifactError(
                f"{path} is corrupt or truncated ({error}); delete it to start the run again with --resume"
            ) from error

    def append_metrics(self, figures: Mapping[str, Any]) -> None:
        """Adds a line to the metrics."""
        try:
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as error:
            raise WriteError(f"cannot write {self.path / METRICS}: {error}") from error

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of the metrics, without a last one that a kill cut short.

        Raises:
            ArtifactError: if another line is no update's, or lacks what the run and its report need.
        """
        path = self.path / METRICS
        lines = path.read_text("utf-8", "replace").splitlines() if path.exists() else []
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                if number == len(lines):
                    break
                raise ArtifactError(f"{path} is corrupt in line {number} ({error}); {_MEND}") from error
            given = row if isinstance(row, dict) else {}
            lacking = [name for name, kind in _READ.items() if not isinstance(given.get(name), kind)]
            if lacking:
                raise ArtifactError(f"{path} is corrupt in line {number}: no {', '.join(lacking)}; {_MEND}")
            rows.append(given)
        return rows

    def truncate_metrics(self, steps: int) -> None:
        """Keeps the lines of the first `steps` updates."""
        kept = [row for row in self.metrics() if row["step"] <= steps]
        with replacing(self.path / METRICS) as file:
            file.write_text("".join(json.dumps(row) + "\n" for row in kept))

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Writes a JSON file of the run."""
        with replacing(self.path / name) as file:
            file.write_text(json.dumps(content, indent=2) + "\n")


def _written(name: str) -> bool:
    return name in FILES or _EVALUATED.fullmatch(name) is not None


def _of(file: Path) -> str:
    """The name of a file that this is, or that this was to become when a kill came."""
    return file.name.split(_PARTIAL)[0]


def _locked(path: Path) -> int | None:
    """Opens and locks a file; None where the file system knows no locks."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise WriteError(f"cannot write {path}: {error}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise ArtifactError(
                f"another process is running in {path.parent}; wait for it, or give another folder with --out"
            ) from error
        except OSError:
            path.unlink(missing_ok=True)
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)  # its owner removed it between our opening and our locking it


def versions() -> dict[str, str]:
    """Versions of the libraries that determine a result."""
    return {name: version(name) for name in ("diffalign", "torch", "diffusers", "transformers")}


def _plain(config: Any) -> Any:
    return asdict(config) if is_dataclass(config) and not isinstance(config, type) else dict(config)
