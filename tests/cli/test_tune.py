import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffalign import Sampler, load_pipeline
from diffalign.artifacts import RunFolder
from diffalign.run.held_out import alarm

FILES = {
    "config.yaml",
    "metrics.jsonl",
    "state.safetensors",
    "lora",
    "before_after.png",
    "reward_curve.png",
    "summary.json",
    "report.html",
    "validation",
}


@pytest.fixture
def quick(tiny_pipeline_folder: Path, workplace: Path) -> list[object]:
    """Options of a run of `tune` that takes a moment: 3 rounds, 4 pictures a prompt and row."""
    (workplace / "prompts.txt").write_text("a dog\na cat\n")
    return [
        *("--prompts", "prompts.txt", "--model", tiny_pipeline_folder, "--reward", "own_reward:red"),
        *("--num-steps", 4, "--rounds", 3, "--samples", 12, "--first-steps", 2, "--threshold", 0.1),
        *("--images", 4, "--check-every", 2, "--check-images", 2, "--batch-size", 6, "--learning-rate", 0.01),
    ]


def figures(folder: Path) -> dict[str, Any]:
    """The summary without seconds and memory, the adapter, and the metrics without seconds."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    rows = RunFolder(folder).metrics()
    for row in rows:
        del row["seconds"], row["sampling_seconds"]
    adapter = load_file(folder / "lora" / "pytorch_lora_weights.safetensors")
    return {**summary, "rows of metrics": rows, "lora": {k: v.tolist() for k, v in adapter.items()}}


def test_a_run_leaves_its_folder(diffalign, quick, tiny_pipeline_folder) -> None:
    done = diffalign("tune", *quick)
    folder = Path("runs/tune-default")
    assert done.code == 0, done.err
    assert {file.name for file in folder.iterdir()} == FILES
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["rows"]) == {"baseline", "tuned"} and summary["n"] == 8
    rows = RunFolder(folder).metrics()
    assert [row["interval"] for row in rows] == [2, 3, 4]
    assert [bool(row.get("held_out")) for row in rows] == [True, True, False]
    # guided: 2 forwards; the steps before the interval once a group of 3
    assert rows[0]["denoiser_forwards"] == 2 * (2 * 4 + 2 * 12 + 2 * rows[0]["selected"])
    assert 'load_lora_weights("lora")' in (folder / "report.html").read_text()

    plain = load_pipeline(tiny_pipeline_folder, device="cpu")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    frozen = Sampler(plain, num_steps=4)(noise, "a dog")
    plain.load_lora_weights(folder / "lora")
    assert not torch.allclose(Sampler(plain, num_steps=4)(noise, "a dog"), frozen)


def test_what_stops_a_run_loses_nothing(diffalign, quick) -> None:
    import own_reward

    assert diffalign("tune", *quick, "--out", "whole").code == 0
    for failure in ("nan", "shape", "raise", "interrupt"):
        # two batches a round; of round 1 a check of two prompts
        own_reward.calls, own_reward.fail_at, own_reward.failure = 0, 6, failure
        stopped = diffalign("tune", *quick, "--out", failure)
        assert stopped.code == (130 if failure == "interrupt" else 2)
        assert f"state saved, go on with: diffalign tune --resume {failure}" in stopped.err
        assert len(RunFolder(Path(failure)).metrics()) == 1
        own_reward.fail_at = None
        assert diffalign("tune", "--resume", failure).code == 0
        assert figures(Path(failure)) == figures(Path("whole"))
        assert "is finished" in diffalign("tune", "--resume", failure).err


def test_runs_in_one_folder_are_gone_on_with_in_turn(diffalign, quick) -> None:
    """Each from a model that no other has tuned."""
    whole = {}
    for seed in (0, 1):
        folder = Path(f"runs/{seed}")
        assert diffalign("tune", *quick, "--seed", seed, "--out", folder).code == 0
        whole[folder] = figures(folder)
        (folder / "summary.json").unlink()
    done = diffalign("tune", "--resume", "runs")
    assert done.code == 0, done.err
    assert {folder: figures(folder) for folder in whole} == whole


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--preset", "b2-dppo"], "did you mean 'b2-dpo'"),
        (["--objective", "pgo"], 'Choose from: "pg", "ppo", "dpok", "dpo"'),
        (["--samples", "13"], "no whole groups of 3"),
        (["--seed", "-1"], "seed must be at least 0 and at most"),
        (["--eta", "1.05"], "eta must be above 0 and at most 1, not 1.05"),
        (["--tracker", "wandbb"], "did you mean 'wandb'"),
        (["--preset", "dpo", "--samples", "2"], "2 samples a round of 2 prompts are one each"),
        (["--check-every", "0", "--keep", "2"], "keep needs checks; give check_every too"),
        (["--first-steps", "9"], "the sampler takes 4 steps"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
    ],
)
def test_a_mistake_leaves_no_folder(diffalign, quick, more: list[str], said: str) -> None:
    options = quick
    for name, value in zip(more[::2], more[1::2], strict=True):
        options = swap(options, name, value) if name in options else [*options, name, value]
    done = diffalign("tune", *options)
    assert done.code == 2 and said in done.err
    assert not Path("runs").exists()


def test_checkpoints_and_a_tracker_beside_the_run(diffalign, quick, tracked) -> None:
    more = ["--keep", 1, "--tracker", "own", "--out", "run"]
    done = diffalign("tune", *swap(quick, "--check-every", "1"), *more)
    assert done.code == 0, done.err
    assert [file.name for file in Path("run/checkpoints").iterdir()] == ["round-00003"]
    means = [row["reward_mean"] for row in RunFolder(Path("run")).metrics()]
    _, settings, *rounds, last = tracked
    assert settings["objective"] == "ppo" and last == "finished"
    assert [(step, values["reward_mean"]) for step, values in rounds] == list(enumerate(means, start=1))
    assert all("held_out/reward" in values for _, values in rounds)
    assert diffalign("tune", *quick, "--out", "run", "--overwrite").code == 0
    assert not Path("run/checkpoints").exists()


def swap(options: list[object], name: str, value: str) -> list[object]:
    place = options.index(name)
    return [*options[: place + 1], value, *options[place + 2 :]]


def test_prompts_are_needed_and_another_commands_folder_is_not_resumed(diffalign, small) -> None:
    assert "--prompts" in diffalign("tune").err
    assert diffalign("find", "a dog", *small, "--out", "noise").code == 0
    assert "settings of diffalign find" in diffalign("tune", "--config", "noise/config.yaml").err
    assert "was not written by diffalign tune" in diffalign("tune", "--resume", "noise").err


def test_the_alarm_goes_when_the_reward_rises_alone() -> None:
    first = {"reward": 1.0, "judged": 0.5, "distance": 0.4}
    assert alarm([]) is alarm([first]) is None
    assert alarm([first, {**first, "reward": 2.0}]) is None
    assert "judged share" in str(alarm([first, {**first, "reward": 2.0, "judged": 0.3}]))
    assert "diversity" in str(alarm([first, {**first, "reward": 2.0, "distance": 0.2}]))
    assert alarm([first, {"reward": 0.5, "judged": 0.1, "distance": 0.1}]) is None
    assert alarm([{**first, "judged": None}, {"reward": 2, "judged": None, "distance": None}]) is None
    assert alarm([{**first, "distance": None}, {**first, "reward": 2.0, "distance": 0.2}]) is None


def test_one_picture_has_no_diversity_in_checks_and_results(diffalign, quick) -> None:
    options = swap(swap(swap(quick, "--images", "1"), "--check-images", "1"), "--check-every", "1")
    done = diffalign("tune", *options, "--out", "run")
    assert done.code == 0 and "diversity fell" not in done.err
    assert [row["held_out"]["distance"] for row in RunFolder(Path("run")).metrics()] == [None] * 3
    rows = json.loads(Path("run/summary.json").read_text())["rows"]
    assert {name: row["diversity"] for name, row in rows.items()} == {"baseline": None, "tuned": None}
    assert "0.000" not in done.out.split("2 fresh pictures a row")[1]
    (cells,) = [line for line in Path("run/report.html").read_text().split("<tr ") if "tuned" in line[:14]]
    assert cells.count("<td>–</td>") >= 2


def test_what_was_spent_is_what_the_run_recorded(diffalign, quick) -> None:
    """Branches, what learning itself takes, and an end before the last round."""
    more = ["--inner-epochs", 2, "--objective", "dpok", "--stop-on-alarm", "--out", "run"]
    config = Path("run/config.yaml")
    assert diffalign("tune", *quick, *more).code == 0
    config.write_text(
        config.read_text().replace("rounds: 3", "rounds: 7")
    )  # as planned, of which 3 were done
    spent = json.loads(Path("run/summary.json").read_text())["cost"]
    learned = spent["tuned"]["denoiser_forwards"] - spent["baseline"]["denoiser_forwards"]
    assert learned > 3 * 12 * 2 * 4
    assert diffalign("evaluate", "run", "--prompt", "a dog", "--images", 2).code == 0
    again = json.loads(Path("run/evaluation-a-dog.json").read_text())["cost"]
    assert again["tuned"]["reward_queries"] == spent["tuned"]["reward_queries"] == 36
    assert again["tuned"]["denoiser_forwards"] == learned + 2 * 2 * 4
