"""Where weights come from: a folder, the hub's cache, or the hub."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from diffalign.rewards import RewardError

Loaded = TypeVar("Loaded")


class DamagedError(OSError):
    """A file of weights that is there cannot be read."""


def check_folder(checkpoint: str) -> None:
    """That what can be no name of a repository is a folder.

    Raises:
        RewardError: if it is not there.
    """
    if checkpoint.startswith(("/", ".", "~")) and not Path(checkpoint).is_dir():
        raise RewardError(f"there is no folder {checkpoint}")


def local_first(load: Callable[[bool], Loaded], checkpoint: str) -> Loaded:
    """What `load` makes of files that are here (True), or else of the hub's (False), if it answers.

    Raises:
        OSError: if there are not all.
    """
    try:
        return load(True)
    except DamagedError:
        raise
    except OSError as error:
        if not hub_answers():
            if Path(checkpoint).exists():
                raise
            raise OSError("it is not all on this machine, and the hub does not answer") from error
    return load(False)


def hub_answers() -> bool:
    """Whether the hub can be asked; says so at once, where its own client tries again for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(constants.ENDPOINT, timeout=5):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def weights_of(checkpoint: str, names: Sequence[str], local_files_only: bool = False) -> dict[str, Any]:
    """The first of the files `names` that a folder, or a repository of the hub, holds.

    Files that are no safetensors are read by torch's restricted loader, which runs no code of theirs.

    Arguments:
        local_files_only: of a repository take what is in the cache.

    Raises:
        OSError: if there is none.
    """
    from huggingface_hub import load_state_dict_from_file

    file = file_of(checkpoint, names, local_files_only)
    published = file.suffix != ".safetensors"
    try:
        return dict(
            load_state_dict_from_file(file, map_location="cpu", safe=not published, weights_only=True)
        )
    except OSError:
        raise
    except Exception as error:  # safetensors and torch raise what has no base of its own
        raise DamagedError(f"{file} is damaged, or holds no weights; delete it and fetch it again") from error


def file_of(checkpoint: str, names: Sequence[str], local_files_only: bool = False) -> Path:
    """The place of the first of `names` that a folder, or a repository of the hub, holds; as `weights_of`.

    Raises:
        OSError: if there is none.
    """
    folder = Path(checkpoint)
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise FileNotFoundError(f"the folder has no {' and no '.join(names)}")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError  # LocalEntryNotFoundError is one

    for name in names[:-1]:
        try:
            return Path(hf_hub_download(checkpoint, name, local_files_only=local_files_only))
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(checkpoint, names[-1], local_files_only=local_files_only))
