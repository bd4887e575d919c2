"""Folders of pictures: which pictures there are of which prompt.

A source is a folder with pictures of one prompt, or a folder with such folders, one for each prompt. The
pictures of a run's folder are in its pictures/, where `diffalign generate` writes them. They are sorted by
name, 2 before 10; grids do not count. A video is an animated PNG or WebP.

The prompt of a folder is in `prompt.txt` beside the pictures, or is what the run recorded. Otherwise it is
--prompt for the source's folder, and the name, with dashes as spaces, for a folder in it.
"""

import re
import struct
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageSequence

from diffalign.files import CONFIG, PICTURES, PROMPT, SUMMARY
from diffalign.settings.choices import shortened
from diffalign.settings.reading import ReadError, read_json, read_text, read_yaml

#: The formats that are read, by the suffixes of files.
KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
#: Pixels of a frame, and of all frames of a file: of what people look at, none has more.
MOST_PIXELS, MOST_IN_ALL = 2**25, 2**27
#: By the orientation that a camera records, what stands a picture upright.
_TURNS: Mapping[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: What Pillow raises of a damaged file.
_FAULTS = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
_GRID = re.compile(r"seed-?\d+-grid\.png")


class SourceError(ValueError):
    """Folders of pictures cannot be read or compared; the message names a remedy."""


@dataclass(frozen=True)
class Source:
    """A named set of pictures: the files of each prompt, in order; prompts are sorted."""

    name: str
    pictures: Mapping[str, tuple[Path, ...]]

    @property
    def size(self) -> int:
        """The number of pictures."""
        return sum(len(files) for files in self.pictures.values())


def read_source(text: str, prompt: str | None = None) -> Source:
    """The source described by FOLDER or NAME=FOLDER; by default it has the folder's name.

    Arguments:
        prompt: of pictures in the folder itself, if no file beside them names it.

    Raises:
        SourceError: if the folder has another layout than this module describes.
    """
    name, equals, rest = text.partition("=")
    named = bool(equals) and not Path(text).exists()
    folder = Path(rest if named else text)
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder; give the folder of a run, or one with pictures in it")
    name = (name if named else folder.resolve().name).strip()
    if not name:
        raise SourceError(f"the pictures of {folder} have no name; give one: NAME={folder}")
    return Source(name, dict(sorted(_by_prompt(folder, prompt).items())))


def _by_prompt(folder: Path, prompt: str | None) -> dict[str, tuple[Path, ...]]:
    """The files of each prompt in a source's folder."""
    pictures = _picture_folder(folder)
    subfolders = sorted(path for path in _entries(pictures) if path.is_dir())
    if subfolders and _pictures_in(pictures):
        raise SourceError(f"{pictures} holds both pictures and folders; keep a folder for each prompt")
    if subfolders and prompt is not None:
        raise SourceError(
            f"{pictures} has a folder for each prompt; leave out --prompt, or give one of its folders"
        )
    defaults: dict[Path, str | None] = {path: path.name.replace("-", " ") for path in subfolders}
    by_prompt: dict[str, tuple[Path, ...]] = {}
    for each, default in (defaults or {folder: prompt}).items():
        if not (files := _pictures_in(_picture_folder(each))):
            generate = f"make some with: diffalign generate {each} -n 8"
            remedy = generate if _is_run(each) else "put some into it, as PNG, JPEG or WebP"
            raise SourceError(f"there are no pictures in {_picture_folder(each)}; {remedy}")
        text = _prompt_of(each, default)
        if text in by_prompt:
            raise SourceError(
                f"two folders in {pictures} are of the prompt “{shortened(text)}”; make them one"
            )
        by_prompt[text] = files
    return by_prompt


def _picture_folder(folder: Path) -> Path:
    """Where the pictures of a run's folder, or of any other, are."""
    return folder / PICTURES if _is_run(folder) else folder


def _prompt_of(folder: Path, default: str | None) -> str:
    """The prompt of the pictures in `folder`."""
    pictures = _picture_folder(folder)
    prompt = _read_text(pictures / PROMPT) or (_prompt_of_run(folder) if _is_run(folder) else None) or default
    if prompt is None or not prompt.strip():
        raise SourceError(
            f"no file names the prompt of the pictures in {pictures}; give --prompt, or write it to "
            f"{pictures / PROMPT}"
        )
    return prompt.strip()


def _read_text(path: Path) -> str | None:
    """The text of a file, if there is one."""
    try:
        return read_text(path).strip() if path.is_file() else None
    except ReadError as error:
        raise SourceError(f"{path}: {error}; write it anew") from error


def _prompt_of_run(run: Path) -> str | None:
    """The prompt that a run recorded, if it had a single one."""
    for name, read in ((SUMMARY, read_json), (CONFIG, read_yaml)):
        try:
            content = read(run / name) if (run / name).is_file() else None
        except ReadError as error:
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
    return tuple(sorted((path for path in files if not _GRID.fullmatch(path.name)), key=_by_number))


def _by_number(path: Path) -> tuple[list[str | int], str]:
    """The key that sorts names as people count: 2 before 10."""
    texts, digits = re.split("[0-9]+", path.name), re.findall("[0-9]+", path.name)
    return [*chain(*zip_longest(texts, map(int, digits), fillvalue=0))], path.name


def matched(sources: Sequence[Source]) -> dict[str, int]:
    """The number of pictures of each prompt, which must be the same in all sources.

    Raises:
        SourceError: if there are less than two sources, if two share a name, or if prompts or numbers differ.
    """
    if len(sources) < 2:
        raise SourceError(f"a comparison needs at least two folders, not {len(sources)}")
    names = [source.name for source in sources]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise SourceError(f"two sources are called {repeated!r}; give names: NAME=FOLDER")
    first, *others = sources
    for other in others:
        for prompt in sorted(first.pictures.keys() ^ other.pictures.keys()):
            having, lacking = (first, other) if prompt in first.pictures else (other, first)
            raise SourceError(
                f"{having.name} has pictures of “{shortened(prompt)}”, {lacking.name} has none; all need the "
                "same prompts"
            )
        for prompt, pictures in first.pictures.items():
            if len(pictures) != len(other.pictures[prompt]):
                raise SourceError(
                    f"of “{shortened(prompt)}” {first.name} has {len(pictures)} pictures and {other.name} "
                    f"{len(other.pictures[prompt])}; give equally many"
                )
    return {prompt: len(pictures) for prompt, pictures in first.pictures.items()}


def read_frames(path: Path) -> list[Image.Image]:
    """The frames of a file as RGB as people see them, without metadata; a picture has one.

    They stand upright, transparent pixels are on white, and of 16 bits the upper 8 count.

    Raises:
        SourceError: if it cannot be read, or has more than `MOST_PIXELS`.
    """
    try:
        with warnings.catch_warnings(category=Image.DecompressionBombWarning, action="ignore"):
            opened = Image.open(path, formats=sorted(set(KINDS.values())))
        with opened as image:
            pixels, frames = image.width * image.height, getattr(image, "n_frames", 1)
            if pixels > MOST_PIXELS or pixels * frames > MOST_IN_ALL:
                raise SourceError(
                    f"{path} has {image.width}×{image.height} pixels, and {frames} frames; make it smaller: "
                    f"at most {MOST_PIXELS:,} pixels, and {MOST_IN_ALL:,} in all frames"
                )
            turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
            seen = map(_seen, ImageSequence.Iterator(image))
            upright = (frame if turn is None else frame.transpose(turn) for frame in seen)
            return [Image.frombytes("RGB", frame.size, frame.tobytes()) for frame in upright]
    except SourceError:
        raise
    except _FAULTS as error:
        raise SourceError(f"{path} is no picture that can be read: {error}") from error


def _seen(frame: Image.Image) -> Image.Image:
    """A frame as RGB, on white."""
    if frame.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        values, hidden = np.asarray(frame), frame.info.get("transparency")
        grey = Image.fromarray((values.clip(0, 2**16 - 1) >> 8).astype(np.uint8))
        if hidden is not None:
            grey.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
        frame = grey
    if not frame.has_transparency_data:
        return frame.convert("RGB")
    above = frame.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
