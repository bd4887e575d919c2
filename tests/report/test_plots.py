import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from diffalign.files import ArtifactError
from diffalign.report import plots
from diffalign.report.plots import before_after, grid, quality_against_cost, reward_curve

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
    assert columns.max() - x + 1 == 3 * 128 + 2 * (plots.GAP + 2 * plots.FRAME)  # three columns
    assert rows.max() - y + 1 == 2 * 128 + plots.GAP + 2 * plots.FRAME  # in two rows


@pytest.mark.parametrize(("size", "shown"), [(3, 129), (128, 128), (200, 200), (512, 256), (600, 200)])
def test_pictures_are_shown_at_a_readable_size(size: int, shown: int) -> None:
    tiles = plots._tiles(torch.full((2, 3, size, size), 0.5))
    assert tiles.shape == (2, shown, shown, 3)
    assert (tiles == 128).all()


def test_a_wide_picture_keeps_its_shape() -> None:
    assert plots._tiles(torch.zeros(1, 3, 32, 64)).shape == (1, 64, 128, 3)


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
    frame = (128 + 2 * plots.FRAME) ** 2 - 128**2
    plain = pixels(before_after(grey, grey, tmp_path / "plain.png"))
    assert count(plain, plots.RIGHT) == count(plain, plots.WRONG) == 0
    verdicts = (torch.tensor([False, False, True]), [True, True, True])
    judged = pixels(before_after(grey, grey, tmp_path / "judged.png", verdicts=verdicts))
    # frame and badge of each picture, less the mark on the badge
    assert 4 * frame < count(judged, plots.RIGHT) < 4 * (frame + 18 * 18)
    assert 2 * frame < count(judged, plots.WRONG) < 2 * (frame + 18 * 18)


def test_titles_are_text_and_not_formulas(tmp_path: Path) -> None:
    grey = torch.full((1, 3, 64, 64), 0.5)
    picture = pixels(grid(grey, tmp_path / "title.png", title="a $x^$ <b>"))
    assert (picture[plots.MARGIN : plots.MARGIN + plots.TITLE] < 128).any()


def test_pictures_that_do_not_fit(tmp_path: Path) -> None:
    grey = torch.full((2, 3, 64, 64), 0.5)
    with pytest.raises(ValueError, match="2 pictures before and 1 after"):
        before_after(grey, grey[:1], tmp_path / "a.png")
    with pytest.raises(ValueError, match="2 pictures, but 1 verdicts"):
        grid(grey, tmp_path / "a.png", verdicts=[True])
    with pytest.raises(ValueError, match="at least one"):
        grid(grey[:0], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot write"):
        grid(torch.zeros(1, 3, 8, 8), tmp_path / "none" / "a.png")


def lines(*steps: list[float]) -> list[dict[str, object]]:
    ends = np.cumsum([len(rewards) for rewards in steps]).tolist()
    return [{"queries": end, "rewards": rewards} for end, rewards in zip(ends, steps, strict=True)]


def drawn(monkeypatch: pytest.MonkeyPatch, metrics, **more):
    """The axes of a reward curve."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure) or path)
    reward_curve(metrics, "unused.png", **more)
    return figures[0].axes[0], [text.get_text() for text in figures[0].legends[0].get_texts()]


def test_the_curve_has_every_query_and_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    axes, labels = drawn(
        monkeypatch, lines([1, 3, 2, 0, 1], [4, 0, 5, 5, 1]), baseline=1.5, reward="clip", title="a $dog"
    )
    dots = axes.collections[0].get_offsets()
    assert dots[:, 0].tolist() == list(range(1, 11))
    assert dots[:, 1].tolist() == [1, 3, 2, 0, 1, 4, 0, 5, 5, 1]
    best, running, baseline = axes.lines
    assert best.get_ydata().tolist() == [1, 3, 3, 3, 3, 4, 4, 5, 5, 5]
    assert running.get_ydata().tolist() == [1, 2, 2.5, 1, 0.5, 2.5, 2, 2.5, 5, 3]  # windows of two
    assert set(baseline.get_ydata()) == {1.5}
    assert labels == ["one query", "best so far", "mean of the last 2 queries", "frozen model, mean"]
    assert axes.get_ylabel() == "clip" and "queries" in axes.get_xlabel()


def test_a_curve_of_one_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = reward_curve(lines([0.7]), tmp_path / "curve.png", title="$x^$", reward="$y^$")
    assert pixels(path).shape == (690, 1350, 3)
    axes, labels = drawn(monkeypatch, lines([0.7]))
    assert axes.get_xlim() == (0.0, 2.0) and labels == ["one query"]


def test_a_curve_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no reward"):
        reward_curve([], tmp_path / "curve.png")


def test_the_chart_of_quality_says_how_diverse_a_methods_pictures_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    row = {"judged": None, "reward": {"mean": 2.0, "low": 1.0, "high": 3.0}, "forwards": 64}
    table = {"frozen": {**row, "distance": 0.25}, "find": {**row, "distance": None}}
    quality_against_cost(table, tmp_path / "chart.png", reward="red")
    legend = figures[0].axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["frozen, 0.250", "find, –"]


def test_plots_leave_pyplot_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    spec = importlib.util.spec_from_file_location("fresh_plots", plots.__file__)
    assert spec is not None and spec.loader is not None
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    fresh.grid(torch.zeros(1, 3, 8, 8), tmp_path / "grid.png", title="one")
    fresh.reward_curve(lines([0.5, 1.0]), tmp_path / "curve.png")
    assert "matplotlib.pyplot" not in sys.modules
