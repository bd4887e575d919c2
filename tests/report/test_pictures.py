from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffalign.files import ArtifactError
from diffalign.report import pictures
from diffalign.report.pictures import before_after, grid

RED = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1)
BLUE = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def count(picture: np.ndarray, colour: tuple[int, int, int] | str) -> int:
    if isinstance(colour, str):
        colour = tuple(bytes.fromhex(colour[1:]))  # type: ignore[assignment]
    return int((picture == colour).all(-1).sum())


def checkered(n: int, size: int = 64) -> torch.Tensor:
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    return torch.where((rows + columns) % 2 == 0, RED, BLUE).expand(n, 3, size, size)


def test_a_grid_shows_every_pixel_doubled(tmp_path: Path) -> None:
    picture = pixels(grid(checkered(5), tmp_path / "grid.png", columns=3))
    assert count(picture, (255, 0, 0)) == count(picture, (0, 0, 255)) == 5 * 128 * 128 // 2
    rows, columns = np.nonzero((picture != 255).any(-1))
    y, x = rows.min(), columns.min()
    assert (picture[y : y + 2, x : x + 2] == (255, 0, 0)).all()
    assert (picture[y : y + 2, x + 2 : x + 4] == (0, 0, 255)).all()
    assert columns.max() - x + 1 == 3 * 128 + 2 * (pictures.GAP + 2 * pictures.FRAME)  # three columns
    assert rows.max() - y + 1 == 2 * 128 + pictures.GAP + 2 * pictures.FRAME  # in two rows


@pytest.mark.parametrize(("size", "shown"), [(3, 129), (128, 128), (200, 200), (512, 256), (600, 200)])
def test_pictures_are_shown_at_a_readable_size(size: int, shown: int) -> None:
    tiles = pictures._tiles(torch.full((2, 3, size, size), 0.5))
    assert tiles.shape == (2, shown, shown, 3)
    assert (tiles == 128).all()


def test_a_wide_picture_keeps_its_shape() -> None:
    assert pictures._tiles(torch.zeros(1, 3, 32, 64)).shape == (1, 64, 128, 3)


def test_videos_play(tmp_path: Path) -> None:
    video = torch.stack([torch.full((3, 64, 64), level) for level in (0.0, 0.5, 1.0)])[None]
    for path in (
        grid(video, tmp_path / "grid.png", title="a title"),
        before_after(video, 1 - video, tmp_path / "pairs.png", verdicts=([True], [False])),
    ):
        with Image.open(path) as played:
            assert played.n_frames == 3 and played.is_animated  # type: ignore[attr-defined]
            middle = []
            for frame in range(3):
                played.seek(frame)
                middle.append(count(np.asarray(played.convert("RGB")), (round(127.5 * frame),) * 3))
        assert min(middle) > 10_000


def test_before_is_above_after(tmp_path: Path) -> None:
    path = before_after(RED.expand(4, 3, 64, 64), BLUE.expand(4, 3, 64, 64), tmp_path / "pairs.png")
    picture = pixels(path)
    red, blue = ((picture == colour).all(-1) for colour in ((255, 0, 0), (0, 0, 255)))
    assert np.nonzero(red)[0].max() < np.nonzero(blue)[0].min()
    assert (np.nonzero(red.any(0))[0] == np.nonzero(blue.any(0))[0]).all()  # each pair in one column
    assert not list(tmp_path.glob("*.partial"))


def test_frames_show_the_verdicts(tmp_path: Path) -> None:
    grey = torch.full((3, 3, 64, 64), 0.5)
    frame = (128 + 2 * pictures.FRAME) ** 2 - 128**2
    plain = pixels(before_after(grey, grey, tmp_path / "plain.png"))
    assert count(plain, pictures.RIGHT) == count(plain, pictures.WRONG) == 0
    verdicts = (torch.tensor([False, False, True]), [True, True, True])
    judged = pixels(before_after(grey, grey, tmp_path / "judged.png", verdicts=verdicts))
    # the frame of each picture, and the mark below it, which hides none of it
    assert 4 * frame < count(judged, pictures.RIGHT) < 4 * (frame + pictures.LINE**2)
    assert 2 * frame < count(judged, pictures.WRONG) < 2 * (frame + pictures.LINE**2)
    assert count(judged, (128, 128, 128)) >= 6 * 128 * 128


def test_titles_are_text_and_not_formulas(tmp_path: Path) -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    picture = pixels(grid(grey, tmp_path / "title.png", title="a $x^$ <b>"))
    assert (picture[pictures.MARGIN : pictures.MARGIN + pictures.TITLE] < 128).any()


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    with pytest.raises(ValueError, match="2 pictures before and 1 after"):
        before_after(grey, grey[:1], tmp_path / "a.png")
    with pytest.raises(ValueError, match="2 pictures, but 1 verdicts"):
        grid(grey, tmp_path / "a.png", verdicts=[True])
    with pytest.raises(ValueError, match="2 pictures, but 1 captions"):
        grid(grey, tmp_path / "a.png", captions=["a dog"])
    with pytest.raises(ValueError, match=r"\.svg or \.pdf, not as 'a\.tiff'"):
        grid(grey, tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="at least one"):
        grid(grey[:0], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        grid(torch.zeros(1, 3, 8, 8), tmp_path / "none" / "a.png")


def texts(monkeypatch: pytest.MonkeyPatch, **more: Any) -> list[str]:
    """What stands in a grid of two grey pictures."""
    figures: list[Figure] = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: figures.append(figure))
    grid(torch.full((2, 3, 64, 64), 0.5), "unused.png", **more)
    return [text.get_text() for text in figures[0].texts]


def test_captions_stand_below_their_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    found = texts(
        monkeypatch, captions=["a dog", "a blue car on the right of a red dog"], verdicts=[True, False]
    )
    assert found == ["✓", "a dog", "✗", "a blue car on the", "right of a red dog"]


@pytest.mark.parametrize("prompt", ["a dog " * 3000, "字" * 9000])
def test_a_prompt_of_thousands_of_words_fits(prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    title, count, *captions = texts(
        monkeypatch, title=prompt, captions=[prompt, "a cat"], verdicts=[True, True]
    )
    assert 10 < len(title) < 60 and title.endswith("…") and count == "2 of 2 right"
    assert len(captions) == 5 and captions[2].endswith("…")


@pytest.mark.parametrize(("name", "start"), [("a.pdf", b"%PDF"), ("a.svg", b"<?xml")])
def test_pictures_for_papers(name: str, start: bytes, tmp_path: Path) -> None:
    first, again = (grid(checkered(2), tmp_path / name, title="一只狗").read_bytes() for _ in range(2))
    assert first.startswith(start) and first == again
