"""Videos as files that play: animated PNG (lossless), GIF, and MP4 where PyAV is installed."""

from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diffalign.files import replacing

FPS = 8  # frames a second of what the families of 2023 make
Frames = Sequence[NDArray[np.uint8]]


def write_video(video: Tensor, path: Path, fps: int = FPS) -> Path | None:
    """Writes one video in the format of the file's name: .png, .gif or .mp4.

    Arguments:
        video: frames `(F, 3, H, W)`, uint8.
        path: of the file.

    Returns:
        The path, or None of an .mp4 without PyAV (`pip install 'diffalign[video]'`).

    Raises:
        WriteError: if the file cannot be written.
    """
    frames = list(video.permute(0, 2, 3, 1).cpu().numpy())
    if path.suffix == ".mp4":
        return _write_mp4(frames, path, fps)
    return write_animation(frames, path, fps)


def write_animation(frames: Frames, path: Path, fps: int = FPS) -> Path:
    """Writes frames `(H, W, 3)` as one animated .png or .gif, which starts again at its end."""
    first, *others = [Image.fromarray(frame) for frame in frames]
    with replacing(path) as file:
        first.save(
            file,
            path.suffix.removeprefix("."),
            save_all=True,
            append_images=others,
            duration=1000 / fps,
            loop=0,
            disposal=1 if path.suffix == ".png" else 2,
        )
    return path


def _write_mp4(frames: Frames, path: Path, fps: int) -> Path | None:
    """H.264, which browsers play; its sides are even, so an odd one loses a row or column."""
    try:
        av: Any = import_module("av")
    except ImportError:
        return None
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    with replacing(path) as file, av.open(str(file), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path
