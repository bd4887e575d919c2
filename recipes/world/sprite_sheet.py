"""Draws the sprite sheet: one 24×24 RGBA picture of each subject, side by side.

    python -m recipes.world.sprite_sheet FONT.ttf

`FONT.ttf` is the Noto Color Emoji font (SIL Open Font License 1.1, see `src/diffalign/world/assets/OFL.txt`).
The sheet ships with the package: nobody needs the font to use the world.
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

import diffalign.world
from diffalign.world.scenes import SPRITE_SIZE, SUBJECTS

EMOJI = dict(zip(SUBJECTS, "🐶🐱🐼🐰🐸🦁🐷🐵🍎🍌🚗🌻⚽👽", strict=True))
SHEET = Path(diffalign.world.__file__).parent / "assets" / "sprites.png"


def draw_sheet(font_file: Path) -> Image.Image:
    """All subjects side by side, `len(SUBJECTS)` × 24 by 24 pixels, RGBA.

    Raises:
        ValueError: if the font has no picture of a subject.
    """
    font = ImageFont.truetype(str(font_file), 109)  # the size of the font's bitmaps
    sheet = Image.new("RGBA", (SPRITE_SIZE * len(SUBJECTS), SPRITE_SIZE))
    for i, subject in enumerate(SUBJECTS):
        glyph = Image.new("RGBA", (160, 160))
        ImageDraw.Draw(glyph).text((12, 12), EMOJI[subject], font=font, embedded_color=True)
        box = glyph.getbbox()
        if box is None:
            raise ValueError(f"{font_file} has no {EMOJI[subject]}: give the Noto Color Emoji font")
        glyph = glyph.crop(box)
        side = max(glyph.size)
        square = Image.new("RGBA", (side, side))
        square.paste(glyph, ((side - glyph.width) // 2, (side - glyph.height) // 2))
        sheet.paste(square.resize((SPRITE_SIZE, SPRITE_SIZE), Image.Resampling.LANCZOS), (i * SPRITE_SIZE, 0))
    return sheet


def main() -> None:
    """Draws the sheet from the font that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("font", type=Path, help="the Noto Color Emoji font, a .ttf file")
    parser.add_argument("--out", type=Path, default=SHEET, help="the sheet (default: the package's)")
    arguments = parser.parse_args()
    draw_sheet(arguments.font).save(arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
