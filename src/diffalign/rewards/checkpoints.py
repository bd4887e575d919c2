"""Where weights come from: a folder, the hub's cache, or the hub; and networks of published weights."""

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import urlopen

from torch import Tensor, nn

from diffalign.rewards import RewardError

HUB_TIMEOUT = 5.0  # seconds
REASON_LENGTH = 300  # characters of a library's message that an error quotes
Loaded = TypeVar("Loaded")


class DamagedError(OSError):
    """A file of weights that is there cannot be read."""


def check_folder(checkpoint: str) -> None:
    """Checks that a checkpoint which can only be a path is a folder.

    Raises:
        RewardError: if there is no such folder.
    """
    if checkpoint.startswith(("/", ".", "~")) and not Path(checkpoint).is_dir():
        raise RewardError(f"there is no folder {checkpoint}")


def local_first(load: Callable[[bool], Loaded], checkpoint: str) -> Loaded:
    """What `load` returns, from files on this machine if it can, else with those of the hub.

    Arguments:
        load: called with whether local files alone may be used; raises OSError where one is missing.
        checkpoint: folder or hub name, for the message.

    Raises:
        OSError: if a file is missing and the hub does not answer.
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


def one_line(error: Exception) -> str:
    """The beginning of an error's message, without its line breaks."""
    return " ".join(str(error).split())[:REASON_LENGTH]


def hub_answers() -> bool:
    """Whether the hub can be reached, within seconds; its client would try again for half a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        with urlopen(constants.ENDPOINT, timeout=HUB_TIMEOUT):
            return True
    except HTTPError:
        return True
    except OSError:
        return False


def weights_of(checkpoint: str, names: Sequence[str], local_files_only: bool = False) -> dict[str, Any]:
    """The weights by name, from the first of the files `names` that a folder or a hub repository holds.

    Files that are no safetensors are read by torch's restricted loader, which runs no code of theirs.

    Arguments:
        checkpoint: a folder or the name of a repository.
        names: of files, in the order of preference.
        local_files_only: whether files of a repository are read from the cache alone.

    Raises:
        DamagedError: if the file cannot be read.
        OSError: if there is no such file.
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
    except Exception as error:  # what safetensors and torch raise has no common base
        raise DamagedError(f"{file} is damaged, or holds no weights; delete it and fetch it again") from error


def file_of(checkpoint: str, names: Sequence[str], local_files_only: bool = False) -> Path:
    """The path of the first of the files `names` that a folder or a hub repository holds.

    Arguments are those of `weights_of`.

    Raises:
        OSError: if there is no such file.
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
        with suppress(EntryNotFoundError):
            return Path(hf_hub_download(checkpoint, name, local_files_only=local_files_only))
    return Path(hf_hub_download(checkpoint, names[-1], local_files_only=local_files_only))


def renamed(name: str, names: Mapping[str, str]) -> str:
    """A weight's name, in which the parts between dots that `names` knows have the names it gives."""
    known = "|".join(re.escape(part) for part in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![^.])(?:{known})(?![^.])", lambda found: names[found[0]], name)


def linear_layers(weights: Mapping[str, Tensor], prefix: str) -> nn.Sequential:
    """The linear layers with the weights PREFIX NUMBER.weight and .bias; the numbers may have gaps.

    Raises:
        KeyError: if there are none, or parts of one are missing.
    """
    numbers = {int(name.removeprefix(prefix).split(".")[0]) for name in weights if name.startswith(prefix)}
    layers = nn.Sequential()
    for number in sorted(numbers) or [0]:
        state = {kind: weights[f"{prefix}{number}.{kind}"] for kind in ("weight", "bias")}
        layers.append(nn.Linear(*state["weight"].shape[::-1]))
        layers[-1].load_state_dict(state)
    return layers
