"""The sprite sheet: a 24×24 RGBA picture of each subject, and its tinted versions.

The sheet was drawn from the Noto Color Emoji font (SIL Open Font License 1.1, see
`assets/OFL.txt`) by `python -m diffalign.world.sprites FONT.ttf`; nobody needs the font to use it.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffalign.world.scenes import SPRITE_SIZE, SUBJECTS, TINTS

EMOJI = dict(zip(SUBJECTS, "🐶🐱🐼🐰🐸🦁🐷🐵🍎🍌🚗🌻⚽👽", strict=True))
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


def draw_sheet(font_file: Path) -> Image.Image:
    """The sheet of all subjects side by side, `24 · len(SUBJECTS)` × 24 pixels, RGBA.

    Raises:
        ValueError: if the font lacks an emoji.
    """
    font = ImageFont.truetype(str(font_file), 109)  # the size of the font's bitmaps
    sheet = Image.new("RGBA", (SPRITE_SIZE * len(SUBJECTS), SPRITE_SIZE))
    for i, subject in enumerate(SUBJECTS):
        glyph = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(glyph).text((12, 12), EMOJI[subject], font=font, embedded_color=True)
        box = glyph.getbbox()
        if box is None:
            raise ValueError(f"{font_file} has no glyph for {EMOJI[subject]}")
        glyph = glyph.crop(box)
        side = max(glyph.size)
        square = Image.new("RGBA", (side, side))
        square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
        sheet.paste(square.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS), (i * SPRITE_SIZE, 0))
    return sheet


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


if __name__ == "__main__":
    target = Path(__file__).parent / "assets" / "sprites.png"
    target.parent.mkdir(exist_ok=True)
    draw_sheet(Path(sys.argv[1])).save(target)
    print(target)
