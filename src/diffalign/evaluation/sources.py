"""Folders of pictures: which pictures there are of which prompt.

A folder of one prompt has pictures in it. It is a run's folder (then its pictures/, which
`diffalign generate` writes), or any other. A source is a folder of one prompt, or a folder of such
folders, one a prompt. Pictures of a prompt come in the order of their names; grids are none.

The prompt is in `prompt.txt` beside the pictures, or what a run recorded; else that of --prompt for the
source's own folder, or the name, with dashes as spaces, for a folder in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from PIL import Image, UnidentifiedImageError

from diffalign.files import CONFIG, PICTURES, PROMPT, SUMMARY

#: By the ends of names, the formats that are read.
KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_GRID = re.compile(r"seed-?\d+-grid\.png")


class SourceError(ValueError):
    """Folders of pictures cannot be read or compared; the message says what can be done."""


@dataclass(frozen=True)
class Source:
    """What is compared: its name, and the pictures of each prompt, in order; prompts are sorted."""

    name: str
    pictures: Mapping[str, tuple[Path, ...]]

    @property
    def size(self) -> int:
        """How many pictures there are."""
        return sum(len(files) for files in self.pictures.values())


def read_source(text: str, prompt: str | None = None) -> Source:
    """The source of FOLDER or NAME=FOLDER; without a name it is the folder's.

    Arguments:
        prompt: of the pictures that lie in the folder itself, if nothing beside them says it.

    Raises:
        SourceError: if the folder has another layout than the header says.
    """
    name, equals, rest = text.partition("=")
    named = bool(equals) and not Path(text).exists()
    folder = Path(rest if named else text)
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; give the folder of a run, or one with pictures in it")
    name = (name if named else folder.resolve().name).strip()
    if not name:
        raise SourceError(f"the pictures of {folder} have no name; give one: NAME={folder}")
    return Source(name, dict(sorted(_of_prompts(folder, prompt).items())))


def _of_prompts(folder: Path, prompt: str | None) -> dict[str, tuple[Path, ...]]:
    place = folder / PICTURES if _is_run(folder) else folder
    own = _pictures_in(place)
    inside = sorted(path for path in _entries(place) if path.is_dir())
    if own and inside:
        raise SourceError(f"{place} holds both pictures and folders; keep a folder for each prompt")
    if own:
        return {_prompt_of(folder, place, prompt): own}
    if not inside:
        _refuse_empty(folder, place)
    if prompt is not None:
        raise SourceError(f"{place} has a folder a prompt; leave out --prompt, or give one of its folders")
    found: dict[str, tuple[Path, ...]] = {}
    for each in inside:
        pictures = each / PICTURES if _is_run(each) else each
        if not (files := _pictures_in(pictures)):
            _refuse_empty(each, pictures)
        text = _prompt_of(each, pictures, each.name.replace("-", " "))
        if text in found:
            raise SourceError(f"two folders in {place} are of the prompt “{text}”; make them one")
        found[text] = files
    return found


def _refuse_empty(folder: Path, place: Path) -> None:
    todo = (
        f"make some with: diffalign generate {folder} -n 8"
        if _is_run(folder)
        else "put some into it, as PNG, JPEG or WebP"
    )
    raise SourceError(f"there are no pictures in {place}; {todo}")


def _prompt_of(folder: Path, place: Path, otherwise: str | None) -> str:
    found = _written(place / PROMPT) or (_recorded(folder) if _is_run(folder) else None) or otherwise
    if found is None or not found.strip():
        raise SourceError(
            f"nothing says what the pictures in {place} should show; give --prompt, or write it to "
            f"{place / PROMPT}"
        )
    return found.strip()


def _written(path: Path) -> str | None:
    try:
        return path.read_text("utf-8").strip() if path.is_file() else None
    except UnicodeDecodeError as error:
        raise SourceError(f"{path} is no UTF-8 text; write it anew") from error


def _recorded(run: Path) -> str | None:
    """The one prompt that a run was for, if it says so."""
    for name, read in ((SUMMARY, json.loads), (CONFIG, yaml.safe_load)):
        try:
            content = read((run / name).read_text("utf-8")) if (run / name).is_file() else None
        except (ValueError, yaml.YAMLError) as error:
            raise SourceError(f"{run / name} is corrupt: {error}") from error
        prompt = content.get("prompt") if isinstance(content, dict) else None
        if isinstance(prompt, str) and prompt.strip():
            return prompt
    return None


def _is_run(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else []


def _pictures_in(folder: Path) -> tuple[Path, ...]:
    files = (path for path in _entries(folder) if path.suffix.lower() in KINDS and path.is_file())
    return tuple(sorted(path for path in files if not _GRID.fullmatch(path.name)))


def matched(sources: Sequence[Source]) -> dict[str, int]:
    """Prompts that all sources have, and of each how many pictures there are in each.

    Raises:
        SourceError: if there are less than two sources, two of one name, or if they differ in that.
    """
    if len(sources) < 2:
        raise SourceError(f"a comparison needs at least two folders, not {len(sources)}")
    names = [source.name for source in sources]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SourceError(f"two sources are called {twice!r}; give names: NAME=FOLDER")
    first, *others = sources
    for other in others:
        for prompt in sorted(first.pictures.keys() ^ other.pictures.keys()):
            there, lacking = (first, other) if prompt in first.pictures else (other, first)
            raise SourceError(
                f"{there.name} has pictures of “{prompt}”, {lacking.name} has none; all need the same prompts"
            )
        for prompt, pictures in first.pictures.items():
            if len(pictures) != len(other.pictures[prompt]):
                raise SourceError(
                    f"of “{prompt}” {first.name} has {len(pictures)} pictures and {other.name} "
                    f"{len(other.pictures[prompt])}; give equally many"
                )
    return {prompt: len(pictures) for prompt, pictures in first.pictures.items()}


def read_picture(path: Path) -> Image.Image:
    """A picture's pixels alone, as RGB.

    Raises:
        SourceError: if it cannot be read.
    """
    try:
        with Image.open(path, formats=sorted(set(KINDS.values()))) as image:
            return Image.frombytes("RGB", image.size, image.convert("RGB").tobytes())
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise SourceError(f"{path} is no picture that can be read: {error}") from error
