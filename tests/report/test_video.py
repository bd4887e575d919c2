"""Videos as files, read back."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from diffalign.evaluation.sources import read_frames
from diffalign.report.video import write_video


@pytest.fixture
def video() -> torch.Tensor:
    """Five frames of 32×48 whose left part brightens."""
    frames = torch.zeros(5, 3, 32, 48, dtype=torch.uint8)
    for i in range(5):
        frames[i, :, :, :24] = 50 * i
    return frames


def test_an_animated_png_holds_every_pixel(video: torch.Tensor, tmp_path: Path) -> None:
    path = write_video(video, tmp_path / "video.png", fps=10)
    assert path is not None
    again = np.stack([np.asarray(frame) for frame in read_frames(path)])
    assert (again == video.permute(0, 2, 3, 1).numpy()).all()
    with Image.open(path) as played:
        assert played.info["duration"] == 100 and played.info["loop"] == 0


def test_a_gif_plays(video: torch.Tensor, tmp_path: Path) -> None:
    path = write_video(video, tmp_path / "video.gif")
    assert path is not None
    with Image.open(path) as played:
        assert played.n_frames == 5  # type: ignore[attr-defined]
        played.seek(4)
        assert played.convert("RGB").getpixel((3, 3)) == (200, 200, 200)


@pytest.mark.parametrize("width", [48, 47])
def test_an_mp4_plays(video: torch.Tensor, tmp_path: Path, width: int) -> None:
    path = write_video(video[..., :width], tmp_path / "video.mp4", fps=10)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(frames) == 5 and frames[0].shape == (32, 2 * (width // 2), 3)
    assert abs(int(frames[4][5, 5, 0]) - 200) < 8
    assert not list(tmp_path.glob("*partial*"))


def test_without_pyav_there_is_no_mp4(
    video: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    assert write_video(video, tmp_path / "video.mp4") is None and not list(tmp_path.iterdir())
