"""What scripts read: results on stdout, all else on stderr; JSON, quiet, the list of runs, early ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from diffalign.artifacts import RunFolder

LISTS = ["models"], ["rewards"], ["prompts"], ["prompts", "world/heldout"], ["runs", "run"]


def read(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def test_results_are_lines_of_json_and_nothing_else(diffalign, small: list[object]) -> None:
    done = diffalign("--json", "find", "a dog", "--out", "run", *small, "--no-baselines")
    (found,) = read(done.out)
    summary = json.loads(Path("run/summary.json").read_text())
    assert found == {"folder": "run", **summary}
    assert "learn: 12/12" in done.err and "left in all" in done.err
    assert [line.split(":")[0] for line in done.err.splitlines()[-2:]] == ["more pictures", "the report"]
    for command in LISTS:
        assert read(diffalign(*command, "--json").out)
    (made,) = read(diffalign("generate", "run", "-n", 2, "--json").out)
    assert made == {"folder": "run/pictures", "pictures": 2, "seed": 0}
    assert read(diffalign("report", "run", "--json").out) == [{"report": "run/report.html"}]
    (judged,) = read(diffalign("evaluate", "run", "--images", 2, "--json").out)
    assert judged["file"] == "run/evaluation.json" and judged["n"] == 2
    checks = read(diffalign("doctor", *small[:4], "--json").out)
    assert len(checks) > 3 and all(check["ok"] for check in checks)
    (measured,) = read(diffalign("measure", "run", "--metrics", "own_reward:red", "--json").out)
    assert measured["rows"][0]["pictures"] == 2
    distilled = read(diffalign("distil", "run", *small[:2], "--num-steps", 2, "--steps", 2, "--json").out)
    assert distilled[0]["generator"] == "runs/distilled/generator.safetensors"
    (searched,) = read(diffalign("search", "a dog", "--keep", 2, *[*small[:6], "--queries", 4], "--json").out)
    assert searched["folder"] == "runs/search-a-dog" and len(searched["kept"]["rewards"]) == 2


def test_a_quiet_command_says_its_results_alone(diffalign, small: list[object]) -> None:
    done = diffalign("--quiet", "find", "a dog", "--out", "run", *small, "--no-baselines")
    assert done.err == "" and "learned" in done.out
    done = diffalign("generate", "nowhere", "--quiet")
    assert done.code == 2 and "error: " in done.err


def test_runs_are_listed_and_compared(diffalign, small: list[object], workplace: Path) -> None:
    import own_reward

    for name, seed in (("one", 0), ("two", 1)):
        given = (*small, "--no-baselines", "--seed", seed, "--out", f"all/{name}")
        assert diffalign("find", "a dog", *given).code == 0
    own_reward.calls, own_reward.fail_at = 0, 3
    stopped = diffalign("find", "a cat", *small, "--no-baselines", "--out", "all/deep/three")
    assert stopped.code == 130
    (workplace / "all/bad").mkdir()
    (workplace / "all/bad/config.yaml").write_text("- 3\n")
    shutil.copytree("all/one", "all/cut")
    Path("all/cut/summary.json").write_text('{"schema": "diffalign.summ')
    rows = {row["run"]: row for row in read(diffalign("runs", "all", "--json").out)}
    assert {run: row["state"] for run, row in rows.items()} == {
        "all/bad": "damaged",
        "all/cut": "damaged",
        "all/deep/three": "unfinished",
        "all/one": "finished",
        "all/two": "finished",
    }
    one, three = rows["all/one"], rows["all/deep/three"]
    assert (one["method"], one["prompts"], one["queries"]) == ("find", "a dog", 12)
    assert one["differs"] == {"seed": 0}
    summary = json.loads(Path("all/one/summary.json").read_text())["rows"]
    assert one["reward_before"] == summary["baseline"]["reward"]["mean"]
    assert one["reward_after"] == summary["tuned"]["reward"]["mean"]
    assert one["right_after"] is None  # of what the judge cannot see
    assert (three["queries"], three["reward_after"]) == (8, None)
    table = diffalign("runs", "all").out
    assert "all/deep/three" in table and "seed=1" in table and "score" in table and "…" not in table
    assert "model: " not in table and "method: find" in diffalign("runs", "all/one", "all/two").out
    nothing = diffalign("runs")
    assert nothing.code == 2 and "no run in runs" in nothing.err


@pytest.mark.parametrize(
    ("command", "options", "queries"),
    [
        ("find", ("--stop-at", 1), 6 + 4),  # not after the first round, which is that of the frozen model
        ("find", ("--patience", 1, "--reward", "own_reward:constant"), 6 + 2 * 4),
        ("search", ("--stop-at", 1, "--keep", 2), 4),
        ("search", ("--stop-at", 1, "--keep", 2, "--preset", "spectral", "--num-steps", 4), 4 + 2),
    ],
)
def test_learning_ends_early(
    diffalign, tiny_pipeline_folder: Path, command: str, options: tuple[object, ...], queries: int
) -> None:
    import own_reward

    own_reward.constant = lambda images, prompts: [1.0] * len(images)
    given = ["--model", tiny_pipeline_folder, "--batch-size", 4]
    for name, value in (("--queries", 16), ("--num-steps", 2), ("--reward", "own_reward:red")):
        given += [] if name in options else [name, value]
    given += ["--batch", 4, "--images", 2] if command == "find" else []
    if "spectral" in options:
        given += ["--population", 4, "--preview-steps", 2]
    done = diffalign(command, "a dog", *given, *options, "--out", "run")
    assert done.code == 0, done.err
    assert RunFolder(Path("run")).metrics()[-1]["queries"] == queries
    assert f"stopped after {queries} queries: " in done.err
    said = json.loads(Path("run/summary.json").read_text())["run"]["stopped"]
    assert said in done.err and ("stop_at" in said or "patience" in said)
    assert "run is finished" in diffalign(command, "--resume", "run").err


def test_checks_leave_their_pictures(diffalign, small: list[object], tracked: list[Any]) -> None:
    from accelerate import tracking

    def log_images(self: Any, values: dict[str, Any], step: int) -> None:
        tracked.append((step, {name: value.shape for name, value in values.items()}))

    tracking.LOGGER_TYPE_TO_CLASS["own"].log_images = log_images
    options = ("--check-every", 2, "--check-images", 3, "--tracker", "own", "--no-baselines")
    assert diffalign("find", "a dog", *small, *options, "--out", "run").code == 0
    names = sorted(file.name for file in Path("run/validation").iterdir())
    assert names == ["round-00001.png", "round-00002.png"]
    for step in (1, 2):
        assert (step, {"held_out/pictures": (3, 16, 16, 3)}) in tracked
    assert diffalign("find", "a dog", *small, "--no-baselines", "--overwrite", "--out", "run").code == 0
    assert not Path("run/validation").exists()


def test_half_precision_on_a_cpu_is_said_to_be_slow(tiny_pipeline_folder: Path) -> None:
    import torch

    from diffalign import load_pipeline

    with pytest.warns(UserWarning, match="float16 is slow on a CPU"):
        load_pipeline(tiny_pipeline_folder, device="cpu", dtype=torch.float16)
