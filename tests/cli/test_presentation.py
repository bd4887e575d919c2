import io
import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from diffalign.artifacts import RunFolder
from diffalign.cli import progress, run
from diffalign.cli.errors import explain
from diffalign.cli.progress import RunProgress
from diffalign.cli.tables import (
    comparison_table,
    interval,
    new_table,
    next_steps,
    overview,
    results,
    say,
    search_results,
    stdout,
)
from diffalign.rewards import RewardError
from diffalign.run.folders import folders_for, slug
from diffalign.settings.compare import CompareConfig


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A green dog, on the grass!", "a-green-dog-on-the-grass"),
        ("../../etc/passwd", "etc-passwd"),
        ("四只熊猫", "四只熊猫"),
        ("🐕", slug("🐕")),
        ("चाँद पर, कुत्ता", "चाँद-पर-कुत्ता"),  # vowels are marks
        ("a_dog!", "a_dog"),
    ],
)
def test_slug(text: str, name: str) -> None:
    assert slug(text) == name and name and "/" not in name and not name.startswith((".", "-"))


@pytest.mark.parametrize("text", ["\U00010380" * 300, "字" * 300, "x" * 300, "\U00010380" * 50])
def test_slugs_leave_room_in_the_bytes_of_a_name(text: str) -> None:
    assert len(f"evaluation-{slug(text)}.json.partial".encode()) <= 255 - len("noise-ppo-")


def test_slugs_of_long_prompts_differ() -> None:
    one, other = slug("a dog " * 30 + "one"), slug("a dog " * 30 + "two")
    assert one != other and len(one) < 80


def test_prompts_of_one_name_get_folders_of_their_own() -> None:
    found = folders_for(["a dog", "two cats", "A dog!"], Path("runs"))
    assert len(set(found)) == 3 and found[1] == Path("runs/two-cats")
    assert folders_for(["A dog!", "a dog"], Path("runs")) == [found[2], found[0]]
    assert folders_for(["a dog"], Path("runs")) == [Path("runs/a-dog")]


def test_interval() -> None:
    found = {"mean": 0.484, "low": 0.359, "high": 0.609, "n": 64}
    assert interval(found, percent=True) == "48.4 [35.9, 60.9]"
    assert interval(found, percent=True, signed=True) == "+48.4 [+35.9, +60.9]"
    assert interval(found) == "0.484 [0.359, 0.609]"
    assert interval(None) == "–"


def test_diversity_stands_beside_alignment_and_a_loss_is_red() -> None:
    def between(low: float, high: float) -> Any:
        return {"mean": (low + high) / 2, "low": low, "high": high, "n": 64}

    def row(distance: float | None) -> Any:
        diversity = None if distance is None else {"pairwise_distance": distance, "vendi": 2.0, "on": "clip"}
        return {"reward": between(1, 3), "judged_accuracy": between(0.2, 0.4), "diversity": diversity}

    cost = {"reward_queries": 9, "seconds": 1.0}
    gain = {
        "reward": between(1, 2),
        "judged_accuracy": between(-0.1, 0.2),
        "pairwise_distance": between(-0.2, -0.1),
    }
    summary: Any = {"prompt": "a dog", "reward": "red", "n": 64, "gain": gain}
    summary |= {
        "rows": {"baseline": row(0.25), "tuned": row(None)},
        "cost": {"baseline": cost, "tuned": cost},
    }
    for table, first, shown in ((results(summary), 3, ["0.250", "–"]), (overview([summary]), 4, [])):
        assert str(table.columns[first].header) == "distance"
        *figures, lost = table.columns[first].cells
        assert figures == shown and str(lost) == "-0.150 [-0.200, -0.100]"
        cells = [[*column.cells][-1] for column in table.columns[first - 2 : first + 1]]
        assert [cell.style for cell in cells] == ["green", "", "red"]
    kept = {"rewards": [3.0], **row(0.125)}
    of_search = {"description": "the best", "previews": None, "all": {"reward": between(1, 3)}, "kept": kept}
    found = search_results({**summary, **of_search})
    assert [*found.columns[3].cells] == ["–", "0.125"]


def shown(terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
    with RunProgress(console, 20) as bar:
        with bar.phase("learn", 12, done=4):
            bar.advance(4)
            bar.reward(1.5, 2.25)
            bar.advance(4)
        with bar.phase("evaluate", 8):
            bar.advance(8)
    return console.file.getvalue()


def test_progress_on_a_terminal_and_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 1e9)
    lines = shown(terminal=False).splitlines()
    assert [line.split(" · ")[0] for line in lines] == ["learn: 12/12", "evaluate: 8/8"]
    assert "reward 1.500, best 2.250" in lines[0] and "images/s" in lines[0]
    assert lines[1].endswith("0:00 left in all")
    assert "8/8" in shown(terminal=True)


def test_more_pictures_than_were_planned_leave_no_negative_time() -> None:
    planned = RunProgress(Console(file=io.StringIO()), 2)
    planned.began -= 1.0
    with planned, planned.phase("learn", 2):
        planned.advance(4)
        assert planned.figures().endswith("0:00 left in all") and "-" not in planned.figures()


def test_what_stops_early_leaves_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = RunProgress(Console(file=io.StringIO()), 30)
    with planned, planned.phase("a", 20):
        with planned.phase("learn", 16):
            planned.advance(4)
        planned.advance(4)
    assert (planned.done, planned.total) == (8, 18)


def test_one_pair_is_neither_gain_nor_loss_and_one_picture_is_no_pictures() -> None:
    for n, styles in ((1, ["", "", ""]), (2, ["green", "red", ""])):
        sure = [{"mean": mean, "low": mean, "high": mean, "n": n} for mean in (1.0, -1.0)]
        row = {"reward": sure[0], "judged_accuracy": None, "diversity": None}
        gain = {"reward": sure[0], "judged_accuracy": sure[1], "pairwise_distance": None}
        cost = {"reward_queries": 9, "seconds": 1.0}
        summary: Any = {"prompt": "a dog", "reward": "red", "n": n, "gain": gain}
        table = results(summary | {"rows": {"tuned": row}, "cost": {"tuned": cost}})
        assert str(table.title) == f"“a dog”, {n} fresh picture{'s' * (n > 1)} a row"
        assert [[*column.cells][-1].style for column in table.columns[1:4]] == styles
    compared = comparison_table({}, CompareConfig("a.txt", queries=2, images=1))
    assert str(compared.title) == "a.txt, 2 reward queries and 1 picture of each prompt"


def test_text_from_elsewhere_leads_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    evil = "a dog\x1b]0;owned\x07\x1b[2J\x9b31m\ud800\rx"
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = stdout()
    say(console, evil)
    console.print(evil, markup=False)
    table = new_table(evil, evil)
    table.add_row(Text(evil))
    console.print(table)
    with RunProgress(console, 1) as shown, shown.phase(evil, 1):
        shown.warn(evil)
    error = RewardError(f"the server says {evil}")
    error.add_note(evil)
    explain(error)
    (tmp_path / "prompts.json").write_text(
        json.dumps({"description": evil, "source": evil, "prompts": [evil]})
    )
    run(["prompts", str(tmp_path / "prompts.json")])
    run(["generate", evil])
    captured = capsys.readouterr()
    for said in (captured.out, captured.err):
        assert "a dog\ufffd]0;owned" in said
        left = re.sub(r"\x1b\[(?:[\d;]*m|\?25[lh]|2K|1A)|\r(?=\x1b)", "", said)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", left)


def test_next_steps_survive_the_shell(tmp_path: Path) -> None:
    folder = tmp_path / "it's"
    folder.mkdir()
    learner = SimpleNamespace(one_prompt=True, kept=lambda: None)
    session: Any = SimpleNamespace(folder=RunFolder(folder), learner=learner)
    (generate,) = next_steps(session)
    assert shlex.split(generate)[2:] == ["diffalign", "generate", str(folder), "-n", "16"]
    (folder / "report.html").touch()
    assert next_steps(session)[1].endswith(f" {folder}/report.html")
    learner.one_prompt = False
    assert " --prompt PROMPT " in next_steps(session)[0]
    learner.kept = lambda: object()
    assert len(next_steps(session)) == 1
