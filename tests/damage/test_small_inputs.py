"""Small files that once took all memory, gave a traceback, or changed a figure without a word."""

import json
import re
import shutil
import sqlite3
import struct
import tracemalloc
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from diffalign import load_artifact
from diffalign.artifacts import RunFolder
from diffalign.cli import run
from diffalign.cli.settings import read_settings
from diffalign.evaluation import measuring, sources
from diffalign.evaluation.sources import SourceError, read_frames, read_source
from diffalign.files import (
    CONFIG,
    METRICS,
    ArtifactError,
    WriteError,
    load_tensors,
    read_header,
    save_tensors,
)
from diffalign.policies.generator import NoiseGenerator
from diffalign.prompts import PromptFileError, load_prompts
from diffalign.run.checkpoint import resumable
from diffalign.run.comparison import read_rows
from diffalign.settings.fields import ConfigError
from diffalign.study import StudyError
from diffalign.study.votes import Votes
from tests.damage.kinds import KINDS, PLAN, PNG, Kind
from tests.report.test_html import METRICS as LINE

LAUGHS = zip("abcdefgh", "bcdefghi", strict=True)
BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in LAUGHS)


def written(name: str, folder: Path) -> tuple[Kind, Path]:
    kind = KINDS[name]
    kind.write(folder / kind.name)
    return kind, folder / kind.name


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("noise-dct-preserving", {"basis": "dct3", "latent": "1,400000000,400000000"}),
        ("noise-dct-preserving", {"basis": "dct3@100000000×1", "latent": "100000000,1"}),
        *(("gaussian", {"shape": {size: 10**8}}) for size in ("layers", "width", "text_width", "patch")),
        ("gaussian", {"shape": {"latent": [1, 10**8, 10**8]}}),
        ("gaussian", {"shape": {"latent": [1, 10**8, 10**8], "basis": "dct8"}}),
        *(("anchors", {"shape": {size: 10**8}}) for size in ("components", "prompts", "text_width")),
        ("anchors", {"shape": {"latent": [10**4, 10**4]}}),
    ],
)
def test_sizes_that_a_header_names_are_not_made(name: str, header: dict[str, Any], tmp_path: Path) -> None:
    _, path = written(name, tmp_path)
    format = read_header(path)["format"]
    tensors, old = load_tensors(path)
    if "shape" in header:
        header = {"shape": json.dumps({**json.loads(old["shape"]), **header["shape"]})}
    save_tensors(path, tensors, {**old, **header}, format)
    tracemalloc.start()  # which counts Python's own, such as of 10⁸ layers
    try:
        with pytest.raises(ArtifactError, match="that can be read"):
            (NoiseGenerator.load if "shape" in header else load_artifact)(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": [10**8, 1]}, "pictures are not those of its design"),
        ({"counts": [3, 0]}, "counts must be at least 1"),
        ({"sources": 3}, "sources must be a list"),
        ({"mode": {}}, "mode must be one of"),
        ({"more": 1}, "unexpected keyword"),
    ],
)
def test_a_study_holds_what_its_design_says(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    _, path = written("study-pairs", tmp_path)
    with closing(sqlite3.connect(path)) as file, file:
        (design,) = file.execute("SELECT design FROM study").fetchone()
        file.execute("UPDATE study SET design = ?", [json.dumps({**json.loads(design), **change})])
    with pytest.raises(StudyError, match=said):
        Votes(tmp_path)


@pytest.mark.parametrize("column", ["question = 99", "voter = 'x'", "alignment = 'yes'", "swapped = 7"])
def test_a_vote_that_is_none_is_said(column: str, tmp_path: Path) -> None:
    _, path = written("study-pairs", tmp_path)
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"UPDATE votes SET {column} WHERE question = 1")
    with pytest.raises(StudyError, match="is none"):
        Votes(tmp_path)


YAML = {
    "bomb": BOMB,
    "self": "queries: &a [*a]",
    "date": "queries: 2001-01-01",
    "no-number": "queries: !!int abc",
    "no-bool": "queries: !!bool abc",
    "empty": "queries: !!int ''",
    "deep": "queries: " + "[" * 2000,
    "long": "queries: " + "9" * 5000,
    "half-a-character": 'queries: "\\ud800"',
    "nested": "queries: {a: 1}",
    "key": "3: 4",
}


@pytest.mark.parametrize("name", YAML)
def test_yaml_is_settings_or_an_error_in_a_line(name: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(YAML[name], "utf-8")
    with pytest.raises(ConfigError) as one:
        read_settings(tmp_path / CONFIG)
    assert "\n" not in str(one.value) and len(str(one.value)) < 400
    KINDS["config"].write(tmp_path / CONFIG)
    with (tmp_path / CONFIG).open("a", encoding="utf-8") as file:
        file.write(YAML[name].replace("queries", "more"))
    with pytest.raises(ArtifactError) as two:
        KINDS["config"].read(tmp_path / CONFIG)
    assert "\n" not in str(two.value) and len(str(two.value)) < 2000


def test_a_fraction_that_no_float_holds_is_said() -> None:
    with pytest.raises(ConfigError, match="finite"):
        type(PLAN.sampling)(guidance_scale=10**400)


@pytest.mark.parametrize(
    "content",
    ["[" * 5000, '["\\ud800"]', "[" + "9" * 5000 + "]", "[null]", '[{"text": ["a"]}]', "{", "", "3"],
)
def test_json_is_prompts_or_an_error_in_a_line(content: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(content, "utf-8")
    with pytest.raises(PromptFileError) as said:
        load_prompts(tmp_path / "a.json")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    "data",
    [
        "a dog\nün chat\n".encode(),
        "a dog\r\nün chat\r\n".encode(),
        "a dog\nün chat".encode("utf-8-sig"),
        "a dog\r\nün chat\r\n".encode("utf-16"),
        b"\xfe\xff" + "a dog\nün chat".encode("utf-16-be"),
    ],
)
def test_texts_are_read_as_editors_write_them(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    assert load_prompts(tmp_path / "a.txt").texts == ("a dog", "ün chat")
    (tmp_path / "prompt.txt").write_bytes(data)
    (tmp_path / "a.png").write_bytes(PNG)
    assert list(read_source(str(tmp_path)).pictures) == ["a dog\nün chat"]


def test_utf_16_without_a_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("a dog".encode("utf-16-le"))
    with pytest.raises(PromptFileError, match="character 0"):
        load_prompts(tmp_path / "a.txt")


# Metrics and what was learned


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([1, 2, "cut"], "has 2 of the 3 rounds"),
        ([1, 2], "has 2 of the 3 rounds"),
        ([], "has 0 of the 3 rounds"),
        ([1, 2, 2, 3], "has round 2 in line 3"),
        ([2, 3], "has round 2 in line 1"),
        ([1, 3, 2], "has round 3 in line 2"),
    ],
)
def test_metrics_that_lack_what_was_learned_are_said(lines: list[Any], said: str, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    text = "".join(json.dumps({**LINE, "round": line}) + "\n" for line in lines if line != "cut")
    (tmp_path / METRICS).write_text(text + '{"round": 3, "qu' * ("cut" in lines))
    for read in (lambda: folder.metrics(3), lambda: folder.truncate_metrics(3)):
        with pytest.raises(ArtifactError, match=said):
            read()
    (tmp_path / METRICS).unlink()
    with pytest.raises(ArtifactError, match="has 0 of the 3 rounds"):
        folder.truncate_metrics(3)


def test_a_line_of_a_comparison_that_is_none_is_said(tmp_path: Path) -> None:
    _, path = written("comparison", tmp_path)
    whole = path.read_text()
    path.write_text(whole + '{"method": "fi')
    assert len(read_rows(RunFolder(tmp_path))) == 2
    for line in ('{"method": "fi', "[]", '{"method": "find"}', whole.splitlines()[0].replace("80", "0")):
        path.write_text(f"{line}\n{whole}")
        with pytest.raises(ArtifactError, match="line 1"):
            read_rows(RunFolder(tmp_path))


def test_a_report_goes_on_past_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).mkdir()
        KINDS["summary"].write(tmp_path / name / "summary.json")
    (tmp_path / "a" / "summary.json").write_text('{"loss": 3}')
    (tmp_path / "b" / "summary.json").write_text("[" * 5000)
    (tmp_path / "c" / METRICS).mkdir()
    (tmp_path / "d" / "summary.json").unlink()
    (tmp_path / "d" / "summary.json").mkdir()
    assert run(["report", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("left out") == 4 and (tmp_path / "e" / "report.html").is_file()


def test_a_folder_that_is_gone_is_not_said_to_be_resumable(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run").begin(PLAN.mapping())
    with pytest.raises(WriteError, match="its folder is gone") as said, resumable(folder.path, "find"):
        shutil.rmtree(folder.path)
        folder.save_state({}, {})
    assert "resume" not in " ".join(said.value.__notes__)
    RunFolder(tmp_path / "run").begin(PLAN.mapping())
    with pytest.raises(KeyboardInterrupt) as interrupted, resumable(folder.path, "find"):
        raise KeyboardInterrupt
    assert f"find --resume {folder.path}" in interrupted.value.__notes__[0]


# Pictures

RAMP = np.linspace(0, 255, 12).astype(np.uint8).reshape(3, 4)


def seen(image: Image.Image, path: Path, **more: Any) -> np.ndarray[Any, Any]:
    image.save(path, **more)
    (frame,) = read_frames(path)
    return np.asarray(frame)


def test_pictures_are_read_as_people_see_them(tmp_path: Path) -> None:
    grey = np.repeat(RAMP[..., None], 3, 2)
    assert (seen(Image.fromarray(RAMP.astype(np.uint16) * 257), tmp_path / "16.png") == grey).all()
    hidden = Image.fromarray(np.dstack([grey, np.where(RAMP > 99, 255, 0).astype(np.uint8)]))
    on_white = np.where(grey > 99, grey, 255)
    assert (seen(hidden, tmp_path / "rgba.png") == on_white).all()
    assert (seen(hidden, tmp_path / "rgba.webp", lossless=True) == on_white).all()
    assert (seen(hidden.convert("LA"), tmp_path / "la.png") == on_white).all()
    assert (seen(Image.fromarray(RAMP), tmp_path / "key.png", transparency=0)[0, 0] == 255).all()
    sixteen = Image.fromarray(RAMP.astype(np.uint16) * 257)
    assert (seen(sixteen, tmp_path / "key16.png", transparency=0)[0, 0] == 255).all()
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 128))
    assert seen(half, tmp_path / "half.png")[0, 0, 0] == 127


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_stand_as_the_camera_says(orientation: int, tmp_path: Path) -> None:
    exif, image = Image.Exif(), Image.fromarray(np.repeat(RAMP[..., None], 3, 2))
    exif[0x0112] = orientation
    frame = seen(image, tmp_path / "a.png", exif=exif)
    assert (frame == np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))).all()


def test_pictures_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = ["a-1.png", "a-2.png", "a-10.png", "b1.png", "seed0-998.png", "seed0-1000.png"]
    for name in reversed(names):
        Image.new("RGB", (1, 1)).save(tmp_path / name)
    (files,) = read_source(str(tmp_path), "a dog").pictures.values()
    assert sorted(names) != names
    assert [file.name for file in files] == names


def test_pictures_that_are_too_large_are_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was read"))
    (tmp_path / "a.png").write_bytes(png_header(13000, 13000))
    with pytest.raises(SourceError, match=re.escape("13000×13000 pixels, and 1 frames; make it smaller")):
        read_frames(tmp_path / "a.png")
    monkeypatch.undo()
    video = [Image.new("RGB", (8, 8), shade) for shade in ("red", "blue", "green")]
    video[0].save(tmp_path / "b.png", save_all=True, append_images=video[1:])
    assert len(read_frames(tmp_path / "b.png")) == 3
    monkeypatch.setattr(sources, "MOST_IN_ALL", 3 * 64 - 1)
    with pytest.raises(SourceError, match="3 frames; make it smaller"):
        read_frames(tmp_path / "b.png")


def png_header(width: int, height: int) -> bytes:
    """A PNG that says its size, and no more."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + size + chunk(b"IDAT", zlib.compress(b"\0"))


def test_large_pictures_are_measured_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    source = read_source(str(tmp_path), "a dog")
    whole = torch.cat([images for _, images in measuring._batches(source, 16)])
    monkeypatch.setattr(measuring, "MOST_PIXELS", 128)
    parts = [images for _, images in measuring._batches(source, 16)]
    assert [len(part) for part in parts] == [2, 2, 1] and torch.equal(torch.cat(parts), whole)
