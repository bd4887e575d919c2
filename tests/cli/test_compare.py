"""Methods at equal cost: a table that can be stopped, gone on with and added to."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from diffalign.artifacts import RunFolder
from diffalign.cli.progress import RunProgress
from diffalign.run import session
from diffalign.run.comparison import summarise_rows
from diffalign.settings.fields import ConfigError

ALL = "frozen,best-of-n,halving,zero-order,spectral,spectral-fresh,find,anchors,tune"


@pytest.fixture
def quick(tiny_pipeline_folder: Path, workplace: Path) -> Callable[..., list[object]]:
    """A command of a comparison that takes a moment: 12 queries and 2 pictures of each of 2 prompts."""
    (workplace / "prompts.txt").write_text("a dog\na cat\n")

    def command(*more: object) -> list[object]:
        options: dict[object, object] = {
            **{"--prompts": "prompts.txt", "--model": tiny_pipeline_folder, "--reward": "own_reward:red"},
            **{"--num-steps": 2, "--queries": 12, "--images": 2, "--batch-size": 4, "--out": "compared"},
            "--methods": "frozen,best-of-n,spectral,find",
        }
        options |= dict(zip(more[::2], more[1::2], strict=True))
        return ["compare", *(word for option in options.items() for word in option)]

    return command


def table(folder: str = "compared") -> dict[str, Any]:
    """What was found, without seconds."""
    found = json.loads(Path(folder, "comparison.json").read_text())
    return {method: {**row, "seconds": None} for method, row in found.items()}


def rows(folder: str = "compared") -> list[dict[str, Any]]:
    lines = Path(folder, "comparison.jsonl").read_text().splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def test_methods_are_compared_and_what_is_done_is_kept(diffalign, quick) -> None:
    import own_reward

    done = diffalign(*quick())
    assert done.code == 0, done.err
    found = json.loads(Path("compared/comparison.json").read_text())
    assert list(found) == ["frozen", "best-of-n", "spectral", "find"]
    # a prompt, 2 steps, guided; spectral's previews take as many steps
    assert [row["forwards"] for row in found.values()] == [2 * 4, 12 * 4, 12 * 4, 14 * 4]
    assert found["best-of-n"]["reward"]["mean"] > found["frozen"]["reward"]["mean"]
    assert Path("compared/comparison.png").stat().st_size > 1000
    grids = [Path("compared/pictures", name, "seed0-grid.png") for name in found]
    sizes = set()
    for grid in grids:
        with Image.open(grid) as picture:
            sizes.add(picture.size)
    assert len(sizes) == 1  # the same pictures at the same places
    charts = [Path("compared", f"comparison.{kind}") for kind in ("png", "pdf")]
    drawn = charts[0].read_bytes()
    charts[0].unlink()
    assert diffalign("report", "compared").code == 0 and charts[0].read_bytes() == drawn
    assert diffalign("report", "compared", "--charts", "pdf").code == 0
    assert charts[1].read_bytes().startswith(b"%PDF")
    with Path("compared/comparison.jsonl").open("a") as lines:
        lines.write('{"method": "fi')  # as a kill leaves it
    own_reward.calls = 0
    for again in (
        quick(),
        ["compare", "--resume", "compared"],
        ["compare", "--resume", "--out", "compared"],
    ):
        assert diffalign(*again).code == 0
        assert own_reward.calls == 0
        assert json.loads(Path("compared/comparison.json").read_text()) == found
    other = diffalign(*quick("--guidance-scale", 2.0, "--methods", "find,frozen"))
    assert other.code == 2 and "compared holds a comparison with guidance_scale None; give" in other.err
    assert own_reward.calls == 0 and json.loads(Path("compared/comparison.json").read_text()) == found
    assert "unknown method 'best'" in diffalign(*quick("--methods", "best")).err
    assert "2 pictures are more than half of 3 queries" in diffalign(*quick("--queries", 3)).err


def test_rows_of_before_fingerprints_said_more_are_kept(diffalign, quick) -> None:
    import own_reward

    assert diffalign(*quick()).code == 0
    file, calls = Path("compared/comparison.jsonl"), own_reward.calls
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["about"]["model_fingerprint"] = line["about"]["model_fingerprint"].partition("-")[0]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = diffalign(*quick())
    assert done.code == 0 and own_reward.calls == calls
    assert len(rows()) == len(lines)


def test_what_one_method_cannot_do_is_said_before_any_runs(diffalign, quick, monkeypatch) -> None:
    import own_reward

    def unfit(*arguments: object, **settings: object) -> None:
        raise ConfigError("such a denoiser cannot be tuned")

    monkeypatch.setattr("diffalign.learners.denoiser.DenoiserPolicy", unfit)
    few = "a mixture needs at least 5 queries, not 4; raise --queries, or leave it out of --methods"
    for methods, number, *said in (
        ("find", 2, f"error: find cannot be compared: {few}\n"),
        ("spectral", 11, "spectral would draw all its 2 previews", "or leave spectral out of --methods"),
        ("tune", 2, "such a denoiser cannot be tuned", "or leave tune out of --methods"),
    ):
        line = quick("--methods", f"frozen,best-of-n,{methods}", "--num-steps", number, "--queries", 4)
        done = diffalign(*line)
        assert done.code == 2 and all(words in done.err for words in said)
        assert own_reward.calls == 0 and not Path("compared").exists()


def test_what_does_not_search_is_said_once(diffalign, quick) -> None:
    done = diffalign(*quick("--methods", "best-of-n,zero-order,spectral", "--queries", 12))
    assert done.code == 0 and "spectral moves" not in done.err
    assert done.err.count("zero-order moves after 15 samples, but draws 12 in all") == 1


def test_the_pictures_of_a_comparison_are_counted_before(diffalign, quick, monkeypatch) -> None:
    """Those of a round of tune too, which is more than its queries."""
    told: list[RunProgress] = []

    def watched(*given: Any) -> RunProgress:
        told.append(RunProgress(*given))
        return told[-1]

    monkeypatch.setattr(sys.modules["diffalign.cli.compare"], "RunProgress", watched)
    assert diffalign(*quick("--methods", ALL)).code == 0
    (progress,) = told
    # frozen, four searches, find, anchors and a round of tune
    assert progress.done == progress.total == 4 + 5 * 24 + (24 + 4) + (16 + 4) + (96 + 4)
    assert diffalign("compare", "--resume", "compared").code == 0
    assert told[1].done == told[1].total == progress.total


def test_every_method_spends_its_queries(diffalign, quick) -> None:
    """Those that learn from both prompts at once too, though they take many samples a round."""
    import own_reward

    assert diffalign(*quick("--methods", ALL, "--queries", 24, "--images", 4)).code == 0
    found = {row["method"]: row for row in rows()}
    assert list(found) == ALL.split(",")
    for row in found.values():
        assert [part["prompt"] for part in row["pictures"]] == ["a dog", "a cat"]
    assert all(len(part["reward"]) == 4 for row in found.values() for part in row["pictures"])
    # pictures of 2 prompts, 4 forwards each: searched, or learned from and made at the end
    pictures = {"frozen": 8, "best-of-n": 48, "zero-order": 48, "spectral": 48, "find": 56, "anchors": 56}
    assert {name: found[name]["forwards"] for name in pictures} == {
        name: 4 * number for name, number in pictures.items()
    }
    own_reward.calls = 0
    own = ["--methods", "tune", "--out", "one", "--queries", 48, "--images", 4]
    assert diffalign(*quick(*own)).code == 0
    assert (
        own_reward.calls == 96 // 3 + 2
    )  # a round of 96: batches of a group of 3 branches; then 4 pictures each


def test_ctrl_c_then_resume_gives_the_same(diffalign, quick, monkeypatch) -> None:
    """While pictures are made of the frozen model, searched, learned from and made anew."""
    import own_reward

    monkeypatch.setattr(session, "SAVE_EVERY", 0.0)
    assert diffalign(*quick("--methods", "frozen,zero-order,find,anchors", "--out", "whole")).code == 0
    assert own_reward.calls == 16
    for call in (2, 3, 6, 8, 9, 13, 14, 16):
        own_reward.calls, own_reward.fail_at, out = 0, call, f"stopped-{call}"
        stopped = diffalign(*quick("--methods", "frozen,zero-order,find,anchors", "--out", out))
        assert stopped.code == 130
        assert f"go on with: diffalign compare --resume {out}" in stopped.err
        own_reward.fail_at = None
        assert diffalign("compare", "--resume", out).code == 0
        assert own_reward.calls <= 16 + 4  # at most a round anew, and the batch that failed
        assert table(out) == table("whole") and rows(out) == rows("whole")
        assert not Path(out, "states").exists()


def test_a_method_that_was_stopped_is_not_begun_anew(diffalign, quick, monkeypatch) -> None:
    import own_reward

    monkeypatch.setattr(session, "SAVE_EVERY", 0.0)
    own_reward.fail_at = 5  # three batches a prompt
    assert diffalign(*quick("--methods", "best-of-n")).code == 130
    own_reward.calls, own_reward.fail_at = 0, None
    assert diffalign("compare", "--resume", "compared").code == 0
    assert own_reward.calls == 2


def test_more_methods_and_seeds_add_to_a_folder_and_resume_knows_them(diffalign, quick) -> None:
    import own_reward

    assert diffalign(*quick("--methods", "frozen")).code == 0
    own_reward.calls, own_reward.fail_at = 0, 2
    assert diffalign(*quick("--methods", "frozen,best-of-n", "--seeds", 2)).code == 130
    own_reward.fail_at = None
    assert diffalign("compare", "--resume", "compared").code == 0
    found = [(row["method"], row["seed"]) for row in rows()]
    assert found == [("frozen", 0), ("best-of-n", 0), ("frozen", 1), ("best-of-n", 1)]
    assert {row["seeds"] for row in table().values()} == {2}
    assert yaml.safe_load(Path("compared/config.yaml").read_text())["seeds"] == 2


def test_a_folder_is_of_one_model_and_one_number_of_queries(diffalign, quick) -> None:
    import own_reward

    own_reward.fail_at = 2
    assert diffalign(*quick("--methods", "best-of-n")).code == 130
    assert Path("compared/states").exists()
    own_reward.fail_at = None
    before = {path: path.read_bytes() for path in Path("compared").rglob("*") if path.is_file()}
    done = diffalign(*quick("--methods", "best-of-n", "--queries", 8, "--reward", "jpeg-compressibility"))
    assert done.code == 2 and "compared holds a comparison with queries" in done.err
    assert "reward 'own_reward:red'; give another --out" in done.err
    assert before == {path: path.read_bytes() for path in Path("compared").rglob("*") if path.is_file()}
    other = quick("--methods", "best-of-n", "--queries", 8, "--out", "other")
    assert diffalign(*other).code == 0
    assert json.loads(Path("other/comparison.json").read_text())["best-of-n"]["queries"] == 8


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "no prompts; name a set such as world/heldout, or a file, with --prompts"),
        (["--queries", 4], "no prompts"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--prompts", "world/heldout", "--methods", "find,best"], "unknown method 'best'; choose one of"),
        (["--prompts", "world/heldout", "--methods", ""], "unknown method ''"),
        (["--prompts", "world/heldout", "--queries", 0], "queries must be at least 1"),
        (["--prompts", "world/heldout", "--seeds", 2.5], "--seeds must be a whole number, not 2.5"),
        (["--resume", "none"], "there is no run to resume in none"),
        (["--resume"], "there is no run to resume in runs"),
        (["--prompts", "a/b", "--resume"], "there is no run to resume in runs/compare-a-b"),
        (["--resume", "none", "--queries", 3], "leave out --queries"),
        (["--resume", "none", "--model", "world"], "leave out --model"),
        (["--resume", "none", "--out", "x"], "leave out --out"),
    ],
)
def test_a_mistake_leaves_no_folder(line: list[object], said: str, diffalign) -> None:
    done = diffalign("compare", *line)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert list(Path().iterdir()) == []


def test_another_folder_is_refused(diffalign, quick, small) -> None:
    assert diffalign("find", "a dog", *small, "--out", "run").code == 0
    before = {file.name for file in Path("run").iterdir()}
    done = diffalign(*quick("--out", "run"))
    assert done.code == 2 and "run holds another run" in done.err
    done = diffalign("compare", "--resume", "run")
    assert done.code == 2 and "run/config.yaml was not written by diffalign compare" in done.err
    assert {file.name for file in Path("run").iterdir()} == before
    pytest.importorskip("fcntl")
    assert diffalign(*quick("--methods", "frozen")).code == 0
    shutil.rmtree("run")
    with RunFolder(Path("compared")).lock():
        done = diffalign("compare", "--resume", "compared")
        assert done.code == 2 and "another process is running in compared" in done.err


def test_the_judge_s_word_is_on_what_it_can_read() -> None:
    read = {"prompt": "a dog", "reward": [1.0, 2.0], "judged": [1, 0], "distance": 0.1}
    parts = [read, {**read, "prompt": "a dream", "judged": None}]
    row = {"method": "frozen", "pictures": parts, "about": {"queries": 1}, "forwards": 4, "seconds": 1.0}
    (found,) = summarise_rows([{**row, "seed": 0}]).values()
    assert found["judged"]["mean"] == 0.5 and found["reward"]["mean"] == 1.5
    (found,) = summarise_rows([{**row, "pictures": parts[1:], "seed": 0}]).values()
    assert found["judged"] is None
