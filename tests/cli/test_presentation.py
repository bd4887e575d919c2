from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from diffalign.cli.folders import places, slug
from rich.console import Console

from diffalign import NoiseDistribution, load_pipeline
from diffalign.cli import progress
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import interval, one_liner


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A green dog, on the grass!", "a-green-dog-on-the-grass"),
        ("../../etc/passwd", "etc-passwd"),
        ("四只熊猫", "四只熊猫"),
        ("🐕", slug("🐕")),
    ],
)
def test_slug(text: str, name: str) -> None:
    assert slug(text) == name and name and "/" not in name and not name.startswith((".", "-"))


def test_slugs_of_long_prompts_differ() -> None:
    one, other = slug("a dog " * 30 + "one"), slug("a dog " * 30 + "two")
    assert one != other and len(one) < 80


def test_prompts_of_one_name_get_folders_of_their_own() -> None:
    found = places(["a dog", "two cats", "A dog!"], Path("runs"))
    assert len(set(found)) == 3 and found[1] == Path("runs/two-cats")
    assert places(["A dog!", "a dog"], Path("runs")) == [found[2], found[0]]
    assert places(["a dog"], Path("runs")) == [Path("runs/a-dog")]


def test_interval() -> None:
    found = {"mean": 0.484, "low": 0.359, "high": 0.609, "n": 64}
    assert interval(found, percent=True) == "48.4 [35.9, 60.9]"
    assert interval(found, percent=True, signed=True) == "+48.4 [+35.9, +60.9]"
    assert interval(found) == "0.484 [0.359, 0.609]"
    assert interval(None) == "–"


def shown(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with RunProgress(console, 20) as bar:
        with bar.phase("learn", 12, done=4):
            bar.advance(4)
            bar.reward(1.5, 2.25)
            bar.advance(4)
        with bar.phase("evaluate", 8):
            bar.advance(8)
    return console.file.getvalue()


def test_progress_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 1e9)
    lines = shown(terminal=False).splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["learn: 12/12", "evaluate: 8/8"]
    assert "reward 1.500, best 2.250" in lines[0] and "images/s" in lines[0] and "0:00 left" in lines[1]
    assert "8/8" in shown(terminal=True)


def test_one_liner_survives_the_shell(tmp_path: Path) -> None:
    import shlex

    line = one_liner(tmp_path / "it's", "world", 'a "big" dog', {"guidance_scale": 3.0, "height": None})
    python, flag, code = shlex.split(line)
    assert (python, flag) == ("python", "-c")
    compile(code, "line", "exec")
    assert "guidance_scale=3.0" in code and "height" not in code


def test_one_liner_makes_pictures_in_half_precision(
    tiny_pipeline_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The accelerator's default; of two kinds that a CPU computes in, bfloat16 stands for it."""
    import shlex

    import diffalign

    seen: list[torch.dtype] = []

    def loaded(name: str) -> object:
        pipeline = load_pipeline(name, device="cpu", dtype=torch.bfloat16)
        pipeline.unet.register_forward_pre_hook(lambda unet, arguments: seen.append(arguments[0].dtype))
        return pipeline

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diffalign, "load_pipeline", loaded, raising=False)
    NoiseDistribution.standard((4, 8, 8)).save("noise.safetensors")
    call = {"num_inference_steps": 2, "guidance_scale": 3.0}
    line = one_liner(Path("noise.safetensors"), str(tiny_pipeline_folder), "a dog", call)
    exec(shlex.split(line)[2], {})
    assert Path("picture.png").is_file() and seen == [torch.bfloat16] * 2


def test_one_liner_makes_videos(
    tiny_video_pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    from PIL import Image

    import diffalign

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(diffalign, "load_pipeline", lambda name: tiny_video_pipeline, raising=False)
    NoiseDistribution.standard((4, 3, 8, 8)).save("noise.safetensors")
    line = one_liner(Path("noise.safetensors"), "m", "a dog", {"num_inference_steps": 2}, video=True, n=2)
    exec(shlex.split(line)[2], {})
    with Image.open("video.gif") as video:
        assert video.size == (16, 16) and getattr(video, "n_frames", 1) == 3
