"""The sprite sheet: a 24×24 RGBA picture of each subject, and its tinted versions.

The sheet was drawn from the Noto Color Emoji font (SIL Open Font License 1.1, see
`assets/OFL.txt`) by `recipes/world/sprite_sheet.py`; nobody needs the font to use it.
"""

from functools import cache
from importlib.resources import files

import numpy as np
from PIL import Image

from diffalign.world.scenes import SPRITE_SIZE, SUBJECTS, TINTS

TINT_COLOURS = {
    "red": (0.92, 0.16, 0.16),
    "green": (0.20, 0.78, 0.25),
    "blue": (0.22, 0.42, 0.98),
    "yellow": (1.00, 0.87, 0.15),
    "purple": (0.62, 0.25, 0.85),
    "pink": (1.00, 0.58, 0.80),
}
LUMA = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601
GAMMA = 0.7  # of luminance: lightens dark parts, so that they show the tint
SHEET = files("diffalign.world") / "assets" / "sprites.png"


@cache
def load_sprites() -> dict[tuple[str, str | None], tuple[np.ndarray, np.ndarray]]:
    """All sprites: (subject, tint) → colour `(24, 24, 3)` and opacity `(24, 24, 1)`, float32 in [0, 1]."""
    with SHEET.open("rb") as file:
        sheet = np.asarray(Image.open(file).convert("RGBA"), dtype=np.float32) / 255
    sprites: dict[tuple[str, str | None], tuple[np.ndarray, np.ndarray]] = {}
    for i, subject in enumerate(SUBJECTS):
        sprite = sheet[:, i * SPRITE_SIZE : (i + 1) * SPRITE_SIZE]
        colour, opacity = sprite[..., :3], sprite[..., 3:]
        luminance = colour @ np.array(LUMA, dtype=np.float32)
        luminance = (luminance / luminance[opacity[..., 0] > 0.5].max()) ** GAMMA
        sprites[subject, None] = colour, opacity
        for tint in TINTS:
            shade = np.clip(luminance, 0, 1)[..., None] * np.asarray(TINT_COLOURS[tint], dtype=np.float32)
            sprites[subject, tint] = shade, opacity
    return sprites
