"""Text, JSON and YAML as people and programs write them: what cannot be read is one `ReadError`."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

import yaml

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LARGEST: Final = 3.4e38  # of float32
DEEPEST: Final = 64  # lists in lists
_PLAIN: Final = ("null", "bool", "int", "float", "str", "seq", "map")


class ReadError(ValueError):
    """A file does not hold the text, JSON or YAML that it should; the message is a line without its name."""


class _Plain(yaml.SafeLoader):
    """Of YAML what settings need: text, numbers, lists and mappings, each key of which stands once.

    An alias of a list or mapping is refused: a few lines of them may stand for more than memory holds, or for
    a list in itself.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """As yaml's; raises a `YAMLError` at an alias of more than one value."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent) and not isinstance(node, yaml.ScalarNode):
            mark: Any = event.start_mark
            problem = "an alias of a list or mapping, which must be written out"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As yaml's; raises a `YAMLError` where a key stands twice."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # yaml refuses lists and mappings as keys itself
                continue
            if key.value in seen:
                problem = f"{key.value} stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def refuse(self, node: yaml.Node) -> NoReturn:
        """Raises a `YAMLError` at a value of another type, such as a date."""
        kind = node.tag.rpartition(":")[2]
        problem = f"a value of the type {kind}; put text in quotes"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_Plain.yaml_constructors = {
    tag: make
    for tag, make in {**yaml.SafeLoader.yaml_constructors, None: _Plain.refuse}.items()
    if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _PLAIN
}


def read_text(path: Path) -> str:
    """The text of a file as editors write it: UTF-8, or UTF-16 with its mark; lines end with a newline.

    Raises:
        OSError: if there is no such file.
        ReadError: if it is no text.
    """
    with path.open("rb") as file:
        marked = file.read(2) in _UTF_16
    try:
        text = path.read_text("utf-16" if marked else "utf-8-sig")
    except UnicodeError as error:
        raise ReadError(f"not UTF-8 text ({error})") from error
    if "\0" in text:
        raise ReadError("not UTF-8 text (it holds the character 0)")
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of a text without the empty ones at its end; raises what `read_text` does."""
    text = read_text(path).rstrip()
    return text.split("\n") if text else []


def _one_error(load: Callable[[str], Any], kind: str, text: str) -> Any:
    try:
        loaded = load(text)
        _check_depth(loaded)
        if "\\" in text:  # of an escape: half a character, which no file can hold
            json.dumps(loaded, ensure_ascii=False).encode()
        return loaded
    except json.JSONDecodeError as error:
        raise ReadError(f"not {kind} ({error.msg} in line {error.lineno})") from error
    except RecursionError as error:
        raise ReadError(f"not {kind} that can be read (too deep)") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ReadError(f"not {kind} ({error.problem}{line})") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise ReadError(f"not {kind} ({' '.join(str(error).split())})") from error


def _check_depth(value: Any, left: int = DEEPEST) -> None:
    if not left:
        raise RecursionError
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict | list):
            _check_depth(inner, left - 1)


def parse_json(text: str) -> Any:
    """What `text` says in JSON; raises a `ReadError` if it is none."""
    return _one_error(json.loads, "JSON", text)


def parse_yaml(text: str) -> Any:
    """What `text` says in YAML; raises a `ReadError` if it is none, or says what settings do not need."""
    return _one_error(lambda text: yaml.load(text, _Plain), "YAML", text)


def is_text(value: Any) -> bool:
    """Whether it is text that a file can hold: without half characters, as of bytes that are no UTF-8."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_number(value: Any) -> bool:
    """Whether it is a finite number, as float32 holds them."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_count(value: Any) -> bool:
    """Whether it is a whole number that is not negative, and fits 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def read_json(path: Path) -> Any:
    """What is in a JSON file; raises what `read_text` and `parse_json` do."""
    return parse_json(read_text(path))


def read_yaml(path: Path) -> Any:
    """What is in a YAML file; raises what `read_text` and `parse_yaml` do."""
    return parse_yaml(read_text(path))
