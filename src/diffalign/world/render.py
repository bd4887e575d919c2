"""From scenes to pixels, and from pixels to the tensors that models and rewards take."""

from functools import cache

import numpy as np
import torch

from diffalign.world.scenes import BACKGROUNDS, IMAGE_SIZE, SPRITE_SIZE, Scene
from diffalign.world.sprites import load_sprites

_HORIZONS = (18, 24, 30)  # rows, by variant
_PLAIN = ((0.97, 0.96, 0.93), (0.90, 0.92, 0.95), (0.95, 0.90, 0.86))


@cache
def backgrounds() -> dict[tuple[str, int], np.ndarray]:
    """All backgrounds: (background, variant) → `(64, 64, 3)`, float32 in [0, 1]."""
    rows, columns = np.mgrid[0:IMAGE_SIZE, 0:IMAGE_SIZE].astype(np.float32)
    pictures: dict[tuple[str, int], np.ndarray] = {}
    for variant, horizon in enumerate(_HORIZONS):
        below = (rows >= horizon)[..., None]
        depth = np.clip((rows - horizon) / (IMAGE_SIZE - horizon), 0, 1)[..., None]

        def colour(r: float, g: float, b: float) -> np.ndarray:
            return np.broadcast_to(np.array([r, g, b], dtype=np.float32), (IMAGE_SIZE, IMAGE_SIZE, 3))

        sky = colour(0.62, 0.82, 0.97) + 0.15 * (rows / IMAGE_SIZE)[..., None]
        blades = (0.04 * np.sin(columns * 1.6 + variant) * np.sin(rows * 0.9))[..., None]
        grass = colour(0.36, 0.66, 0.26) - 0.14 * depth + blades
        crater = np.zeros_like(rows)
        for cx, cy, radius in ((12, 46, 7), (36, 56, 6), (54, 42, 6)):
            x, y = (cx + 5 * variant) % IMAGE_SIZE, cy
            crater += ((columns - x) ** 2 / radius**2 + (rows - y) ** 2 / (0.4 * radius) ** 2 < 1) * 0.12
        regolith = colour(0.58, 0.58, 0.62) - 0.12 * depth - crater[..., None]
        lane = (np.abs(rows - (horizon + 20)) < 2) & ((columns + 6 * variant) % 18 < 11)
        asphalt = np.where(lane[..., None], colour(0.93, 0.80, 0.30), colour(0.34, 0.34, 0.37) + 0.06 * depth)
        drifts = (0.03 * np.sin(columns * 0.25 + variant) * np.sin(rows * 0.5))[..., None]
        snow = colour(0.93, 0.96, 1.0) - 0.08 * depth + drifts
        pictures["plain", variant] = colour(*_PLAIN[variant])
        pictures["grass", variant] = np.where(below, grass, sky)
        pictures["moon", variant] = np.where(below, regolith, colour(0.05, 0.05, 0.14))
        pictures["street", variant] = np.where(below, asphalt, colour(0.80, 0.70, 0.62))
        pictures["snow", variant] = np.where(below, snow, colour(0.55, 0.66, 0.80))
    return {key: np.clip(value, 0, 1).astype(np.float32) for key, value in pictures.items()}


def render(scene: Scene) -> np.ndarray:
    """The picture of `scene`, which has a background: `(64, 64, 3)`, float32 in [0, 1]."""
    if scene.background not in BACKGROUNDS:
        raise ValueError(
            f"a scene to render needs a background out of {BACKGROUNDS}, not {scene.background!r}"
        )
    picture = backgrounds()[scene.background, scene.variant].copy()
    for thing in scene.things:
        colour, opacity = load_sprites()[thing.subject, thing.tint]
        window = picture[thing.y : thing.y + SPRITE_SIZE, thing.x : thing.x + SPRITE_SIZE]
        window += opacity * (colour - window)
    return picture


def to_tensor(pictures: list[np.ndarray]) -> torch.Tensor:
    """`B` pictures `(H, W, C)` → one tensor `(B, C, H, W)`, in [0, 1] both."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
