"""Moving pictures: a `Clip` is a scene of which the one thing moves at an even speed, or stands still.

Each place is held for two frames, as animators draw "on twos": things move by 8 pixels, a cell of the
latents, so that a sprite has one code there, and not one for each fraction of a cell.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffalign.world.render import render
from diffalign.world.scenes import Scene

FRAMES = 8
HELD = 2  # frames that a thing stays in a place
STEP = 8  # pixels from one place to the next
TRAVEL = STEP * (FRAMES // HELD - 1)  # pixels from the first frame to the last
#: Motion → its direction (x, y), y downwards.
MOTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
STILL = TRAVEL / 4  # pixels: what travels less stands still
MOVING = TRAVEL / 2  # pixels: what travels more, and mostly along one axis, moves


@dataclass(frozen=True)
class Clip:
    """A scene with one thing, as it is in the first frame, and that thing's motion, one of `MOTIONS`."""

    scene: Scene
    motion: str

    def scenes(self) -> list[Scene]:
        """The scene of each frame."""
        (thing,) = self.scene.things
        x, y = (STEP * component for component in MOTIONS[self.motion])
        steps = [frame // HELD for frame in range(FRAMES)]
        places = ((thing.x + x * step, thing.y + y * step) for step in steps)
        return [replace(self.scene, things=(replace(thing, x=u, y=v),)) for u, v in places]


def render_clip(clip: Clip) -> np.ndarray:
    """The frames of `clip`, `(8, 64, 64, 3)`, float32 in [0, 1]."""
    return np.stack([render(scene) for scene in clip.scenes()])


def motion_of(places: Sequence[tuple[int, int, int]], frames: int) -> str | None:
    """The motion of a thing that was seen at (frame, x, y), in a video of `frames`.

    Its path is the straight line that fits best. None if the thing was seen in less than half of the frames,
    or travels aslant, or neither far enough to move nor little enough to stand still.
    """
    if len(places) < max(2, frames / 2):
        return None
    times, *axes = np.asarray(places, dtype=float).T
    x, y = (np.polyfit(times, axis, 1)[0] * (frames - 1) for axis in axes)
    longer, shorter = max(abs(x), abs(y)), min(abs(x), abs(y))
    if longer < STILL:
        return "still"
    if longer < MOVING or shorter > longer / 2:
        return None
    if longer == abs(x):
        return "right" if x > 0 else "left"
    return "down" if y > 0 else "up"
