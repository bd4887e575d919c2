from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign import NoiseGenerator, Sampler, load_pipeline
from diffalign.artifacts import RunFolder

FILES = {
    "config.yaml",
    "metrics.jsonl",
    "state.safetensors",
    "generator.safetensors",
    "before_after.png",
    "reward_curve.png",
    "summary.json",
    "report.html",
}


@pytest.fixture
def quick(tiny_pipeline_folder: Path, workplace: Path) -> list[object]:
    """Options of a run that takes a moment: 3 rounds of 2 prompts × 4 pictures."""
    (workplace / "prompts.txt").write_text("a dog\na cat\n")
    return [
        *("--prompts", "prompts.txt", "--model", tiny_pipeline_folder, "--reward", "own_reward:red"),
        *("--num-steps", 2, "--rounds", 3, "--prompts-per-round", 2, "--samples-per-prompt", 4),
        *("--images", 4, "--look-every", 2, "--look-images", 2, "--batch-size", 4, "--components", 8),
    ]


def figures(folder: Path) -> dict[str, Any]:
    """The summary without seconds and memory, the generator, and the metrics without seconds."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    rows = RunFolder(folder).metrics()
    for row in rows:
        del row["seconds"]
    return {**summary, "rows of metrics": rows, "weights": NoiseGenerator.load(folder).fingerprint()}


def test_a_run_leaves_its_folder(diffalign, quick, tiny_pipeline_folder) -> None:
    done = diffalign("noise-ppo", *quick)
    folder = Path("runs/noise-ppo-default")
    assert done.code == 0, done.err
    assert {file.name for file in folder.iterdir()} == FILES
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["rows"]) == {"baseline", "tuned"} and summary["n"] == 8
    assert summary["cost"]["tuned"]["reward_queries"] == 24
    assert "NoiseGenerator.load" in (folder / "report.html").read_text()
    rows = RunFolder(folder).metrics()
    assert [bool(row.get("held_out")) for row in rows] == [True, True, False]

    generator, plain = NoiseGenerator.load(folder), load_pipeline(tiny_pipeline_folder, device="cpu")
    latents = generator.sample(["a dog", "a cat"], seed=0)
    assert latents.shape == (2, 4, 8, 8)
    own = Sampler(plain, num_steps=2)(latents, ["a dog", "a cat"])
    pictures = plain(["a dog", "a cat"], latents=latents, num_inference_steps=2, output_type="pt").images
    torch.testing.assert_close(own, pictures)


@pytest.mark.parametrize("failure", ["nan", "raise", "interrupt"])
def test_what_stops_a_run_loses_nothing(diffalign, quick, failure: str) -> None:
    import own_reward

    assert diffalign("noise-ppo", *quick, "--out", "whole").code == 0
    # a batch a prompt; of round 1 a look at two prompts
    own_reward.calls, own_reward.fail_at, own_reward.failure = 0, 6, failure
    stopped = diffalign("noise-ppo", *quick, "--out", "stopped")
    assert stopped.code == (130 if failure == "interrupt" else 2)
    assert "go on with: diffalign noise-ppo --resume stopped" in stopped.err
    assert len(RunFolder(Path("stopped")).metrics()) == 1
    own_reward.fail_at = None
    assert diffalign("noise-ppo", "--resume", "stopped").code == 0
    assert figures(Path("stopped")) == figures(Path("whole"))
    assert "is finished" in diffalign("noise-ppo", "--resume", "stopped").out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--preset", "papers"], "did you mean 'paper'"),
        (["--patch", "3", "--preset", "paper", "--components", "0"], "do not tile"),
        (["--basis", "dct", "--components", "0"], "basis must be"),
        (["--prompts", "nowhere.txt"], "nowhere.txt"),
        (["--look-every", "0", "--stop-on-alarm"], "stop-on-alarm needs looks; give --look-every too"),
        (["--rounds", "1", "--samples-per-prompt", "1"], "leave no prompt with two"),
    ],
)
def test_a_mistake_leaves_no_folder(diffalign, quick, more: list[str], said: str) -> None:
    options = list(quick)
    for name in more[::2]:
        if name in options:  # given once alone
            place = options.index(name)
            del options[place : place + 2]
    options += more
    done = diffalign("noise-ppo", *options)
    assert done.code == 2 and said in done.err
    assert not Path("runs").exists()


def test_pictures_of_any_prompt_are_made_from_a_generator(diffalign, quick) -> None:
    assert diffalign("noise-ppo", *quick, "--out", "generator").code == 0
    done = diffalign("generate", "generator", "--prompt", "a bird", "-n", 2, "--out", "pictures")
    assert done.code == 0, done.err
    assert len(list(Path("pictures").glob("seed0-0*.png"))) == 2
    assert diffalign("generate", "generator", "--prompt", "a bird", "-n", 1).code == 0
    assert Path("generator/pictures/a-bird/seed0-000.png").exists()
    assert diffalign("evaluate", "generator", "--prompt", "a bird", "--images", 4).code == 0
    found = json.loads(Path("generator/evaluation-a-bird.json").read_text())
    assert found["prompt"] == "a bird" and found["cost"]["tuned"]["reward_queries"] == 24
    assert "with --prompt" in diffalign("generate", "generator").err
    assert "with --prompt" in diffalign("generate", "generator", "--prompt", " ").err
    wrong = diffalign("generate", "generator", "--prompt", "a bird", "--model", "world")
    assert wrong.code == 2 and "whose fingerprint is" in wrong.err
    assert diffalign("noise-ppo", *quick, "--out", "generator", "--overwrite").code == 0
    assert not Path("generator/evaluation-a-bird.json").exists()


def test_find_starts_where_a_generator_or_other_runs_ended(diffalign, quick, small) -> None:
    assert diffalign("noise-ppo", *quick, "--out", "generator").code == 0
    more = ["--components", 4]
    assert diffalign("find", "a dog", *small, *more, "--out", "cold").code == 0
    assert diffalign("find", "a dog", *small, *more, "--start", "generator", "--out", "warm").code == 0
    cold, warm = (RunFolder(Path(name)).metrics()[0]["rewards"] for name in ("cold", "warm"))
    assert cold != warm
    assert diffalign("distil", "warm", *small[:2], "--steps", 5, "--out", "distilled").code == 0
    assert diffalign("find", "a dog", *small, *more, "--start", "distilled", "--out", "again").code == 0
    assert "no noise generator" in diffalign("find", "a dog", *small, "--start", "x", "--out", "no").err
    other = ["--model", "world", "--queries", 5, "--start", "generator", "--out", "no"]
    assert "whose fingerprint is" in diffalign("find", "a dog", *other).err
    assert (
        "components must not be 0" in diffalign("find", "a", "--start", "generator", "--preset", "paper").err
    )
    assert "holds no noise.safetensors" in diffalign("distil", "generator").err
    assert not Path("no").exists()


def test_methods_are_compared_and_what_is_done_is_kept(diffalign, quick) -> None:
    import own_reward

    options = [*quick[:6], "--num-steps", 2, "--queries", 12, "--images", 2, "--batch-size", 4]
    options += ["--methods", "frozen,best-of-n,spectral,find", "--out", "compared"]
    done = diffalign("compare", *options)
    assert done.code == 0, done.err
    table = json.loads(Path("compared/comparison.json").read_text())
    assert list(table) == ["frozen", "best-of-n", "spectral", "find"]
    # a prompt, 2 steps, guided; spectral's previews take as many steps
    assert [row["forwards"] for row in table.values()] == [2 * 4, 12 * 4, 12 * 4, 14 * 4]
    assert table["best-of-n"]["reward"]["mean"] > table["frozen"]["reward"]["mean"]
    assert Path("compared/comparison.png").stat().st_size > 1000
    with Path("compared/comparison.jsonl").open("a") as lines:
        lines.write('{"method": "fi')  # as a kill leaves it
    own_reward.calls = 0
    assert diffalign("compare", *options).code == 0
    assert own_reward.calls == 0
    assert json.loads(Path("compared/comparison.json").read_text()) == table
    other = [*options[:-4], "--guidance-scale", 2.0, "--methods", "find,frozen", *options[-2:]]
    assert diffalign("compare", *other).code == 0
    assert own_reward.calls > 0  # another task in the same folder
    assert list(json.loads(Path("compared/comparison.json").read_text())) == ["frozen", "find"]
    assert "unknown method 'best'" in diffalign("compare", *options[:-4], "--methods", "best").err
    assert "leave no choice" in diffalign("compare", "--prompts", "prompts.txt", "--queries", 4).err
