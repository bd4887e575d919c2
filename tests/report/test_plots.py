import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from diffalign.report import plots
from diffalign.report.plots import quality_against_cost, reward_curve


def lines(*steps: list[float]) -> list[dict[str, Any]]:
    ends = np.cumsum([len(rewards) for rewards in steps]).tolist()
    return [{"queries": end, "rewards": rewards} for end, rewards in zip(ends, steps, strict=True)]


def drawn(monkeypatch: pytest.MonkeyPatch, metrics, **more):
    """The axes of a reward curve, and its legend."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure) or path)
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
    with Image.open(path) as picture:
        assert picture.size == (1350, 690)
    axes, labels = drawn(monkeypatch, lines([0.7]))
    assert axes.get_xlim() == (0.0, 2.0) and labels == ["one query"]


def test_a_curve_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no reward"):
        reward_curve([], tmp_path / "curve.png")


def test_of_several_prompts_each_reward_is_less_its_prompts_median(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = lines([1, 51, 2], [3, 50, 53])
    for line, prompts in zip(metrics, ([0, 1, 0], [0, 1, 1]), strict=True):
        line["prompts"] = prompts
    axes, labels = drawn(monkeypatch, metrics, reward="clip")
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [-1, 0, 0, 1, -1, 2]
    assert axes.get_ylabel() == "clip, less its prompt's median"
    assert labels == ["one query", "mean of the last 3 queries"]  # the best of other prompts says nothing
    metrics[1]["prompts"] = [2, 3, 3]  # none came back: their medians would hide what was learned
    axes, _ = drawn(monkeypatch, metrics, reward="clip")
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [1, 51, 2, 3, 50, 53]
    assert axes.get_ylabel() == "clip"


def test_a_reward_far_from_all_others_leaves_room_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [*range(40), -1e6, *range(40)]
    axes, labels = drawn(monkeypatch, lines([float(value) for value in values]))
    low, high = axes.get_ylim()
    assert -4 < low < 0 and 39 < high < 43 and "1 far out, drawn at the edge" in labels
    points, far = (found.get_offsets() for found in axes.collections)
    assert len(points) == 80 and far.tolist() == [[41, 0]]
    assert min(axes.lines[1].get_ydata()) >= 0  # the running mean


@pytest.mark.parametrize("values", [[0.0] * 99 + [1.0], [0.0, 1.0] * 9, [2.0] * 30])
def test_rewards_of_few_values_are_all_near(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    axes, labels = drawn(monkeypatch, lines(values))
    assert len(axes.collections[0].get_offsets()) == len(values) and not any("far out" in it for it in labels)


def test_held_out_checks_stand_below_the_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = lines([1, 2], [3, 4], [5, 6])
    metrics[0]["held_out"] = {"reward": 1.5, "judged": 0.25, "distance": None}
    metrics[2]["held_out"] = {"reward": 2.5, "judged": 0.5, "distance": None}
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    reward_curve(metrics, "unused.png", reward="clip")
    found = {axes.get_title(loc="left"): axes.lines[0] for axes in figures[0].axes[1:]}
    assert list(found) == ["checks: clip", "checks: judged right, %"]
    assert [list(line.get_xdata()) for line in found.values()] == [[2, 6]] * 2
    assert [list(line.get_ydata()) for line in found.values()] == [[1.5, 2.5], [25, 50]]


def test_of_a_search_by_previews_the_curve_is_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = lines([1, 2], [3, 4], [90])
    metrics[0]["previews"] = metrics[1]["previews"] = 2
    axes, labels = drawn(monkeypatch, metrics)
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [1, 2, 3, 4] and labels[0] == "one preview"


def test_many_methods_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    row = {
        "judged": None,
        "reward": {"mean": 2.0, "low": 2.0000000000000004, "high": 2.0},
        "distance": None,
    }  # rounding
    quality_against_cost(
        {f"method {i}": {**row, "forwards": i + 1} for i in range(20)}, "a.png", reward="red"
    )
    found = {(line.get_color(), line.get_marker()) for line in figures[0].axes[0].lines}
    assert len({look for look in found if look[1] not in ("_", "|", "None")}) == 20


def test_the_chart_of_quality_says_how_diverse_a_methods_pictures_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
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
    fresh.reward_curve(lines([0.5, 1.0]), tmp_path / "curve.png")
    assert "matplotlib.pyplot" not in sys.modules
