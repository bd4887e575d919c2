"""ARTEFACT: the folder that a run leaves on disk.

    config.yaml         what was asked for (written first)
    metrics.jsonl       one line a round
    state.safetensors   what --resume needs (written every few seconds)
    noise.safetensors, generator.safetensors, noises.safetensors, lora/ or denoiser/: what was learned
    before_after.png, reward_curve.png, best.png, summary.json, report.html   (at the end)

Metrics of rounds that the saved state has not seen are dropped when a run resumes. Who writes holds
`.lock`, which the kernel lets go of when he dies.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import yaml
from safetensors import SafetensorError, safe_open
from torch import Tensor

from diffalign import files
from diffalign.files import CONFIG, METRICS, PARTIAL, STATE, SUMMARY, ArtifactError, WriteError, replacing
from diffalign.settings.reading import (
    ReadError,
    is_count,
    is_number,
    parse_json,
    read_json,
    read_lines,
    read_yaml,
)

fcntl: Any
try:
    fcntl = import_module("fcntl")
except ImportError:  # on Windows nobody is locked out
    fcntl = None

LOCK = ".lock"
FORMAT = "diffalign.state/1"
#: What a run writes, and `evaluate`, a file a prompt.
_WRITTEN = re.compile("|".join(map(re.escape, files.WRITTEN)) + r"|evaluation-.+\.json")
#: What a line has, and whether a value is of its kind.
Needed = Mapping[str, Callable[[Any], bool]]


def _is_check(value: Any) -> bool:
    """Whether it is what a check of held-out prompts writes."""
    measured = [value.get("judged"), value.get("distance")] if isinstance(value, dict) else ["none"]
    return all(each is None or is_number(each) for each in measured) and is_number(value.get("reward"))


#: What the run and its report read of a line of the metrics.
_READ: Needed = {
    "round": is_count,
    "queries": is_count,
    "rewards": lambda value: isinstance(value, list) and all(map(is_number, value)),
    "seconds": is_number,
    "denoiser_forwards": is_count,
    "held_out": lambda value: value is None or _is_check(value),
}
_MEND = "put the file back as it was, or delete it with state.safetensors to start again with --resume"


class RunFolder:
    """A run's folder, which it may `begin` in; `overwrite` replaces the run that it holds. `resume` opens one
    that has begun.

    Raises:
        ArtifactError: by its methods, if the folder holds another run or other files, holds none to go on
            with, or a file in it is damaged; if another process runs there.
        WriteError: if a file cannot be written.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        self.path, self.overwrite = path, overwrite

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def check(self) -> Self:
        """Checks that a run may `begin` here; changes nothing."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise ArtifactError(f"{path} is a file; give a folder with --out")
        inside = {file.name for file in path.iterdir()} if path.is_dir() else set()
        if inside <= {LOCK, CONFIG + PARTIAL}:  # at most what a kill leaves before a run has begun
            return self
        if CONFIG not in inside:
            raise ArtifactError(
                f"{path} holds files that are not a run; give an empty or new folder with --out"
            )
        if not self.overwrite:
            raise ArtifactError(
                f"{path} holds another run; go on with it (--resume), replace it (--overwrite), "
                "or give another folder (--out)"
            )
        return self

    def begin(self, config: Mapping[str, Any]) -> Self:
        """Starts a run in an empty or new folder and writes its configuration.

        Raises:
            ArtifactError: if `check` says no, or another process runs there.
        """
        self.check()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WriteError(f"cannot make the folder {self.path}: {error}") from error
        with self.lock():
            self.check()  # another may have begun meanwhile
            folders = files.PICTURES, f"{files.PICTURES}-diversity-*", files.FROZEN
            made = [file for name in folders for file in self.path.glob(f"{name}/**/*")]
            old = [file for file in made if files.MADE.fullmatch(_whole_name(file))]
            old += [file for file in self.path.iterdir() if _WRITTEN.fullmatch(_whole_name(file))]
            for file in old:
                if file.name != CONFIG:  # it is replaced below: without it the folder would be no run
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
            self.write_config(config)
        return self

    @classmethod
    def resume(cls, path: Path) -> Self:
        """Opens the folder of a run that was begun."""
        if not (path / CONFIG).is_file():
            raise ArtifactError(f"there is no run to resume in {path}: it has no {CONFIG}")
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing a run to the folder, as long as the block lasts."""
        if fcntl is None:
            yield
            return
        path = self.path / LOCK
        descriptor = _locked(path)
        for leftover in self.path.glob(files.LEFTOVERS):  # of a kill, while nobody else writes here
            leftover.unlink(missing_ok=True)
        try:
            yield
        finally:
            if descriptor is not None:
                with suppress(OSError):  # before it is let go of: then it may be another's
                    path.unlink()
                os.close(descriptor)

    def write_config(self, config: Mapping[str, Any]) -> None:
        with replacing(self.path / CONFIG) as file:
            file.write_text(yaml.safe_dump(dict(config), sort_keys=False), "utf-8")

    def config(self) -> dict[str, Any]:
        """What was asked for."""
        try:
            loaded = read_yaml(self.path / CONFIG)
        except (OSError, ReadError) as error:
            raise ArtifactError(f"{self.path / CONFIG} is corrupt: {error}") from error
        if not isinstance(loaded, dict):
            raise ArtifactError(f"{self.path / CONFIG} is corrupt: it holds no settings")
        return loaded

    def save_state(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        """Writes the state, which never is on the disk before its metrics."""
        with suppress(OSError), (self.path / METRICS).open("rb") as lines:
            os.fsync(lines.fileno())
        files.save_tensors(self.path / STATE, tensors, strings, FORMAT)

    def load_state(self) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """The last state saved, or None if the run ended before there was one."""
        if not (self.path / STATE).exists():
            return None
        try:
            return files.load_tensors(self.path / STATE, FORMAT)
        except ArtifactError as error:
            damage = str(error).partition("; ")[0]
            raise ArtifactError(f"{damage}; delete it to start the run again with --resume") from error

    def finished(self) -> bool:
        """Whether the run is complete and whole; one whose figures or result are damaged or gone is not."""
        learned = [self.path / name for name in files.LEARNED if (self.path / name).is_file()]
        weights = [file for name in files.WEIGHTS for file in self.path.glob(f"{name}/*.safetensors")]
        try:
            summary = read_json(self.path / SUMMARY)
            for file in learned:
                files.load_tensors(file)
            for file in weights:  # diffusers' format has no checksum, but tells what is cut off
                with safe_open(file, "pt") as tensors:
                    values = map(tensors.get_tensor, tensors.keys())
                    if not all(tensor.isfinite().all() for tensor in values):
                        return False
        except (OSError, ValueError, SafetensorError):
            return False
        shown = any((self.path / name).is_file() for name in (files.REPORT, files.BEST))
        return isinstance(summary, dict) and bool(learned or weights) and shown

    def append_metrics(self, figures: Mapping[str, Any]) -> None:
        """Adds a line to the metrics."""
        try:
            with (self.path / METRICS).open("a") as file:
                file.write(json.dumps(figures) + "\n")
        except OSError as error:
            raise WriteError(f"cannot write {self.path / METRICS}: {error}") from error

    def metrics(self, rounds: int = 0) -> list[dict[str, Any]]:
        """The lines of the metrics, one a round from the first on, without a last one that a kill cut short.

        Arguments:
            rounds: that the state has seen, and so there must be at least.

        Raises:
            ArtifactError: if a line is another round's, or lacks what the run and its report need; if lines
                are gone.
        """
        rows = read_rows(self.path / METRICS, _READ, _MEND)
        for number, row in enumerate(rows, start=1):
            if row["round"] != number:
                raise ArtifactError(
                    f"{self.path / METRICS} has round {row['round']} in line {number}, the cost would be "
                    f"wrong; {_MEND}"
                )
        if len(rows) < rounds:
            raise ArtifactError(
                f"{self.path / METRICS} has {len(rows)} of the {rounds} rounds that were learned, the cost "
                f"would be wrong; {_MEND}"
            )
        return rows

    def truncate_metrics(self, rounds: int) -> None:
        """Keeps the lines of the first `rounds` rounds; raises what `metrics` does."""
        write_rows(self.path / METRICS, self.metrics(rounds)[:rounds])


def read_rows(path: Path, needed: Needed, remedy: str) -> list[dict[str, Any]]:
    """The lines of a JSON-lines file, none if there is none, without a last one that a kill cut short.

    Arguments:
        needed: what each line must have.
        remedy: what to do if one has not.

    Raises:
        ArtifactError: if a line is none, or lacks something.
    """
    try:
        lines = read_lines(path) if path.exists() else []
    except (OSError, ReadError) as error:
        raise ArtifactError(f"{path} is corrupt: {error}; {remedy}") from error
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = parse_json(line)
        except ReadError as error:
            if number == len(lines):
                break
            raise ArtifactError(f"{path} is corrupt in line {number} ({error}); {remedy}") from error
        given = row if isinstance(row, dict) else {}
        if lacking := [name for name, fits in needed.items() if not fits(given.get(name))]:
            raise ArtifactError(f"{path} is corrupt in line {number}: no {', '.join(lacking)}; {remedy}")
        rows.append(given)
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes what `read_rows` reads."""
    with replacing(path) as file:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _whole_name(file: Path) -> str:
    """The name of a file that this is, or that this was to become when a kill came."""
    return file.name.split(PARTIAL)[0]


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
