"""Damage to files: of their bytes, and of what they say, with a checksum that fits again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from diffalign.files import load_tensors, read_header, save_tensors

DEPTH = 200
DEEP: Any = []
for _ in range(DEPTH):
    DEEP = [DEEP]
#: What stands where something else should.
ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        3,
        10**8,
        2**63,
        -(2**70),
        10**400,
        0.5,
        -0.0,
        1e-300,
        1e308,
        1e400,
        float("nan"),
    ),
    *("", " ", "a", "1", "\ud800", "\0", "\u2028", "dct1", "dct9@2×2", "x" * 300, "2001-01-01", "../../x"),
    *(
        [],
        [[]],
        [None],
        [1, "a"],
        ["a", "b"],
        [10**8],
        [4, 4 * 10**8, 4 * 10**8],
        {},
        {"a": 1},
        {"": []},
        DEEP,
    ),
)
#: Bytes that mean something in one format or another.
BITES = (
    *(
        b"",
        b"\0",
        b"\xff",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r\n",
        b"{",
        b"}",
        b"[" * 5000,
        b"]",
        b'"',
        b":",
    ),
    *(
        b",",
        b"\\",
        b"\\ud800",
        b"9" * 5000,
        b"-",
        b"1e999",
        b"NaN",
        b"&a [*a]",
        b"*a",
        b"!!int abc",
        b"!!bool x",
    ),
    *(b"!!map x", b"2001-13-01", b"? ", b"- ", b"<<: ", b"null", b"\x80", b"\x7f\xff\xff\xff", b"\0\0\0\0"),
)


@st.composite
def bitten(draw: DrawFn, whole: bytes) -> bytes:
    """Bytes with some changed, put in, taken out, cut off or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at, how = draw(st.integers(0, len(data))), draw(st.integers(0, 5))
        piece = draw(st.sampled_from(BITES) | st.binary(min_size=1, max_size=4))
        end = at + draw(st.integers(1, 8))
        if how == 0:
            data[at:] = b""
        elif how == 1:
            data[at:at] = piece
        elif how == 2:
            data[at:end] = b""
        elif how == 3:
            data[at:at] = data[max(0, at - 40) : end]
        else:
            data[at : at + len(piece)] = piece
    return bytes(data)


def _places(content: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to all that is in lists and mappings."""
    inside = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    return [path, *(place for key, value in inside for place in _places(value, (*path, key)))]


@st.composite
def changed(draw: DrawFn, content: Any) -> Any:
    """A document with one thing put in the place of another, taken out, or under another name."""
    *outer, last = (None, *draw(st.sampled_from(_places(content))))
    value = draw(st.sampled_from(ODD))
    if last is None:
        return value
    content = json.loads(json.dumps(content))
    within = content
    for key in outer[1:]:
        within = within[key]
    how = draw(st.integers(0, 3))
    if how == 0:
        del within[last]
    elif how == 1 and isinstance(within, dict):
        within[str(value)[:20]] = within.pop(last)
    else:
        within[last] = value
    return content


def _dumped(content: Any) -> bytes:
    return json.dumps(content).encode()


def _strings(text: str) -> SearchStrategy[Any]:
    """Other values of a header."""
    odd = st.sampled_from([value for value in ODD if isinstance(value, str) and "\ud800" not in value])
    numbers = st.sampled_from(["4,400000000,400000000", "1,8,8,1", "0,8,8", "-1,8,8", "8", "1,8,100000000"])
    try:
        content = json.loads(text)
    except ValueError:
        return odd | numbers
    return odd | numbers | changed(content).map(_dumped).map(bytes.decode)


@st.composite
def forged(draw: DrawFn, path: Path) -> None:
    """Changes a file of tensors, and gives it a checksum that fits."""
    tensors, header = load_tensors(path)
    format, how = read_header(path)["format"], draw(st.integers(0, 3))
    if how > 1 or not tensors:
        name = draw(st.sampled_from([*sorted(header), "new"]))
        header[name] = draw(_strings(header.get(name, "")))
    else:
        name = draw(st.sampled_from(sorted(tensors)))
        tensor = tensors.pop(name)
        match draw(st.integers(0, 5)):
            case 0:
                tensors[name + "x"] = tensor
            case 1:
                tensors[name] = tensor[None]
            case 2:
                tensors[name] = tensor.to(draw(st.sampled_from([torch.int64, torch.float16, torch.bool])))
            case 3:
                tensors[name] = torch.zeros(draw(st.sampled_from([(), (0,), (1, 1), (3, 3, 3, 3)])))
            case 4:
                tensors[name] = -tensor.float() * draw(st.sampled_from([1, 0, 1e30]))
    save_tensors(path, tensors, header, format)


TABLES = {
    "study": ("version", "id", "secret", "design", "digest"),
    "pictures": ("prompt", "position", "source", "png"),
    "voters": ("number", "id", "began"),
    "votes": ("voter", "question", "swapped", "alignment", "quality", "at"),
}


@st.composite
def rewritten(draw: DrawFn, path: Path) -> None:
    """Changes a value of a database, or takes out rows or tables."""
    with closing(sqlite3.connect(path)) as file, file:
        table = draw(st.sampled_from(sorted(TABLES)))
        column = draw(st.sampled_from(TABLES[table]))
        (design,) = file.execute("SELECT design FROM study").fetchone()
        how = draw(st.integers(0, 7))
        statement, values = f"UPDATE {table} SET {column} = ? WHERE rowid % 2", list[Any]()
        if table == "pictures":
            statement = f"UPDATE {table} SET {column} = ? WHERE prompt = 1"
        if how == 0:
            statement = draw(st.sampled_from([f"DELETE FROM {table}", f"DROP TABLE {table}"]))
        elif how == 1:
            statement = f"ALTER TABLE {table} RENAME COLUMN {column} TO other"
        elif how > 4:
            statement, values = (
                "UPDATE study SET design = ?",
                [_dumped(draw(changed(json.loads(design)))).decode()],
            )
        else:
            plain = [v for v in ODD if isinstance(v, float | str | None) and v != "\ud800"]
            values = [draw(st.sampled_from([*plain, 0, -1, 5, 2**62, b"x", b"\xff"]))]
        try:
            file.execute(statement, values)
        except sqlite3.DatabaseError:  # which the database itself refuses
            return


@st.composite
def damage(draw: DrawFn, path: Path, whole: bytes) -> None:
    """Damages the file at `path`, which was `whole`."""
    path.write_bytes(whole)
    if draw(st.integers(0, 2)) == 0:
        path.write_bytes(draw(bitten(whole)))
    elif path.suffix == ".safetensors":
        draw(forged(path))
    elif path.suffix == ".sqlite":
        draw(rewritten(path))
    elif path.suffix == ".json":
        path.write_bytes(_dumped(draw(changed(json.loads(whole)))))
    elif path.suffix == ".jsonl":
        lines = whole.splitlines()
        number = draw(st.integers(0, len(lines) - 1))
        lines[number] = _dumped(draw(changed(json.loads(lines[number]))))
        path.write_bytes(b"\n".join(lines))
    elif path.suffix == ".yaml":
        path.write_bytes(_dumped(draw(changed(yaml.safe_load(whole)))))  # as JSON is YAML
    else:
        path.write_bytes(draw(bitten(whole)))
