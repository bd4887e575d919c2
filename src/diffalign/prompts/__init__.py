"""PROMPT: prompt sets as data: the embedded world's, and the published ones that papers evaluate on.

A set is `data/<name>.json`: a description, a source, and a list of prompts or the name of the JSON-lines file
beside it that the benchmark publishes.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, overload

from diffalign.settings.choices import unknown
from diffalign.settings.reading import ReadError, read_json, read_lines

_DATA = Path(__file__).parent / "data"
_FILE_SUFFIXES = (".txt", ".json")


class UnknownPromptSetError(ValueError):
    """There is no prompt set with the given name."""


class PromptFileError(ValueError):
    """A prompt file is empty, or holds something that is no prompt."""


@dataclass(frozen=True)
class Prompt:
    """A prompt and the aspect that it tests (such as `color` or `count`), if its set names one."""

    text: str
    aspect: str | None = None


@dataclass(frozen=True)
class PromptSet(Sequence[str]):
    """Prompts with their origin; a sequence of their texts.

    Attributes:
        name: by which the set is loaded, or the stem of a file.
        description: for the list of sets.
        source: the publication, or the path of a file.
        prompts: in the order of the set.
    """

    name: str
    description: str
    source: str
    prompts: tuple[Prompt, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts without their aspects."""
        return tuple(prompt.text for prompt in self.prompts)

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.texts[index]

    def __repr__(self) -> str:
        return f"PromptSet({self.name!r}, {len(self)} prompts: {self[0]!r} …)"


@cache
def _built_in() -> dict[str, Any]:
    """The sets in the package: name → parsed file."""
    names = {file.relative_to(_DATA).with_suffix("").as_posix(): file for file in _DATA.rglob("*.json")}
    return {name: json.loads(file.read_text("utf-8")) for name, file in sorted(names.items())}


def list_prompt_sets() -> list[str]:
    """The names that `load_prompts` knows, sorted."""
    return list(_built_in())


def load_prompts(name: str | Path) -> PromptSet:
    """The prompt set called `name`, or the prompts of a file.

    Arguments:
        name: one of `list_prompt_sets()`, or the path of a `.txt` file (one prompt a line) or of a
            `.json` file (a list of prompts, or of objects with `text` and perhaps `aspect`).

    Raises:
        UnknownPromptSetError: if `name` is neither a set nor a file.
        FileNotFoundError: if `name` ends in .txt or .json and there is no such file.
        PromptFileError: if the file has no prompts, an empty prompt or another form.
    """
    sets = _built_in()
    if isinstance(name, str) and name in sets:
        entry = sets[name]
        items = entry["prompts"]
        if isinstance(items, str):
            items = [json.loads(line) for line in (_DATA / items).read_text("utf-8").splitlines()]
        return PromptSet(name, entry["description"], entry["source"], _read(items, name))
    path = Path(name)
    if path.suffix in _FILE_SUFFIXES or path.is_file():
        return _load_file(path)
    raise UnknownPromptSetError(unknown("prompt set", str(name), sets))


def _load_file(path: Path) -> PromptSet:
    """The prompts of a `.txt` or `.json` file."""
    if not path.is_file():
        raise FileNotFoundError(
            f"no prompt file {str(path)!r}; give a file or one of: {', '.join(_built_in())}"
        )
    try:
        items = read_json(path) if path.suffix == ".json" else read_lines(path)
    except ReadError as error:
        raise PromptFileError(f"{path}: {error}") from error
    if not isinstance(items, list):
        raise PromptFileError(f"{path}: a JSON prompt file is a list, not {type(items).__name__}")
    return PromptSet(path.stem, f"prompts of {path.name}", str(path), _read(items, str(path)))


def _read(items: Iterable[Any], origin: str) -> tuple[Prompt, ...]:
    """Prompts of texts or of objects; `origin` is for messages."""
    prompts = []
    for number, item in enumerate(items, 1):
        fields = item if isinstance(item, dict) else {"text": item}
        # GenEval has `prompt` and `tag`
        text = fields.get("text", fields.get("prompt"))
        aspect = fields.get("aspect", fields.get("tag"))
        if not isinstance(text, str) or not isinstance(aspect, str | None):
            raise PromptFileError(
                f"{origin}: prompt {number} is {item!r}; give a text or {{'text': …, 'aspect': …}}"
            )
        if not text.strip():
            raise PromptFileError(f"{origin}: prompt {number} is empty; write a prompt or remove it")
        prompts.append(Prompt(text.strip(), aspect))
    if not prompts:
        raise PromptFileError(f"{origin}: no prompts; write at least one")
    return tuple(prompts)
