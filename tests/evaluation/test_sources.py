"""Folders: each layout that is read, and what is said of the others."""

import json
from pathlib import Path

import pytest

from diffalign.evaluation.sources import SourceError, matched, read_source


def png(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_a_run_knows_its_prompt_and_grids_are_no_pictures(tmp_path: Path) -> None:
    pictures = tmp_path / "run" / "pictures"
    png(
        *(pictures / name for name in ("seed0-001.png", "seed0-000.png", "seed0-grid.png", "seed-1-grid.png"))
    )
    (tmp_path / "run" / "config.yaml").write_text("prompt: a dog\nseed: 0\n")
    source = read_source(str(tmp_path / "run"))
    assert source.name == "run"
    assert source.pictures == {"a dog": (pictures / "seed0-000.png", pictures / "seed0-001.png")}
    (tmp_path / "run" / "summary.json").write_text(json.dumps({"prompt": "a cat"}))
    assert list(read_source(f"x={tmp_path / 'run'}").pictures) == ["a cat"]


def test_plain_folders_and_where_their_prompts_come_from(tmp_path: Path) -> None:
    png(
        tmp_path / "flat" / "1.png",
        tmp_path / "deep" / "two-dogs" / "1.PNG",
        tmp_path / "deep" / "b" / "1.png",
    )
    assert list(read_source(str(tmp_path / "flat"), "a dog").pictures) == ["a dog"]
    (tmp_path / "flat" / "prompt.txt").write_text("a “red” dog\n")
    assert list(read_source(str(tmp_path / "flat"), "a dog").pictures) == ["a “red” dog"]
    (tmp_path / "deep" / "b" / "prompt.txt").write_text("Bees!")
    assert list(read_source(str(tmp_path / "deep")).pictures) == ["Bees!", "two dogs"]


def test_a_folder_of_runs_has_a_prompt_a_run(tmp_path: Path) -> None:
    for name, prompt in (("x", "one"), ("y", "two")):
        png(tmp_path / "runs" / name / "pictures" / "seed0-000.png")
        (tmp_path / "runs" / name / "config.yaml").write_text(f"prompt: {prompt}")
    (tmp_path / "runs" / "comparison.json").write_text("{}")
    assert list(read_source(str(tmp_path / "runs")).pictures) == ["one", "two"]


def test_a_generators_run_has_a_folder_a_prompt(tmp_path: Path) -> None:
    png(tmp_path / "run" / "pictures" / "three-pandas" / "seed0-000.png")
    (tmp_path / "run" / "config.yaml").write_text("prompts: world/many")
    assert list(read_source(str(tmp_path / "run")).pictures) == ["three pandas"]


#: What is in the folder x (a name with / at its end is a folder), --prompt, and what is said.
FAULTS: dict[str, tuple[dict[str, str], str | None, str]] = {
    "empty": ({}, None, "put some into it, as PNG, JPEG or WebP"),
    "no pictures": ({"config.yaml": "prompt: x"}, None, r"make some with: diffalign generate .*/x -n 8"),
    "no prompt": ({"1.png": ""}, None, "give --prompt, or write it to .*prompt.txt"),
    "both": ({"1.png": "", "a/1.png": ""}, "x", "both pictures and folders"),
    "an empty one": ({"a/1.png": "", "b/": ""}, None, "x/b; put"),
    "a prompt too much": ({"a/1.png": ""}, "x", "leave out --prompt"),
    "twice": (
        {"a/1.png": "", "b/1.png": "", "b/prompt.txt": "a"},
        None,
        "two folders in .* are of the prompt “a”",
    ),
    "corrupt": ({"pictures/1.png": "", "config.yaml": "{"}, None, "config.yaml is corrupt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_other_layouts_are_refused(fault: str, tmp_path: Path) -> None:
    inside, prompt, said = FAULTS[fault]
    (tmp_path / "x").mkdir()
    for name, content in inside.items():
        path = tmp_path / "x" / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text(content)
    with pytest.raises(SourceError, match=said):
        read_source(str(tmp_path / "x"), prompt)


def test_sources_match_by_prompt_and_number(tmp_path: Path) -> None:
    for name, counts in {"a": (2, 1), "b": (2, 1), "c": (2,), "d": (2, 3)}.items():
        for prompt, count in zip("pq", counts, strict=False):
            png(*(tmp_path / name / prompt / f"{i}.png" for i in range(count)))
    a, b, c, d = (read_source(str(tmp_path / name)) for name in "abcd")
    assert matched([a, b]) == {"p": 2, "q": 1}
    with pytest.raises(SourceError, match="at least two folders, not 1"):
        matched([a])
    with pytest.raises(SourceError, match="two sources are called 'a'"):
        matched([a, a])
    for one, other in ((a, c), (c, a)):
        with pytest.raises(SourceError, match="a has pictures of “q”, c has none"):
            matched([one, other])
    with pytest.raises(SourceError, match="of “q” a has 1 pictures and d 3"):
        matched([a, d])
