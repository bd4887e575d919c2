"""The two methods that learn one generator of noise for all prompts."""

import json
from collections.abc import Callable
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
    "validation",
}


METHODS = ("anchors", "noise-ppo")


@pytest.fixture
def quick(tiny_pipeline_folder: Path, workplace: Path) -> Callable[..., list[object]]:
    """A command of a run that takes a moment: 3 rounds of 2 prompts × 4 pictures."""
    (workplace / "prompts.txt").write_text("a dog\na cat\n")

    def command(method: str, *more: object) -> list[object]:
        options: dict[object, object] = {
            **{"--prompts": "prompts.txt", "--model": tiny_pipeline_folder, "--reward": "own_reward:red"},
            **{"--num-steps": 2, "--rounds": 3, "--prompts-per-round": 2, "--samples-per-prompt": 4},
            **{"--images": 4, "--check-every": 2, "--check-images": 2, "--batch-size": 4},
            **({"--components": 8} if method == "anchors" else {"--hidden-size": 8, "--minibatch": 1}),
        }
        options |= dict(zip(more[::2], more[1::2], strict=True))  # given once alone
        return [method, *(word for option in options.items() for word in option)]

    return command


def figures(folder: Path) -> dict[str, Any]:
    """The summary without seconds and memory, the generator, and the metrics without seconds."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    rows = RunFolder(folder).metrics()
    for row in rows:
        del row["seconds"], row["sampling_seconds"]
    return {**summary, "rows of metrics": rows, "weights": NoiseGenerator.load(folder).fingerprint()}


@pytest.mark.parametrize("method", METHODS)
def test_a_run_leaves_its_folder(method: str, diffalign, quick, tiny_pipeline_folder) -> None:
    done = diffalign(*quick(method))
    folder = Path(f"runs/{method}-default")
    assert done.code == 0, done.err
    assert {file.name for file in folder.iterdir()} == FILES
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["rows"]) == {"baseline", "tuned"} and summary["n"] == 8
    assert summary["cost"]["tuned"]["reward_queries"] == 24
    # 2 steps, guided: 4 forwards a picture
    assert summary["cost"]["tuned"]["denoiser_forwards"] == (24 + 8) * 4
    assert summary["prompt"] == "2 training prompts" and summary["run"]["method"] == method
    assert "NoiseGenerator.load" in (folder / "report.html").read_text()
    rows = RunFolder(folder).metrics()
    assert [row["round"] for row in rows] == [1, 2, 3]
    assert all(len(row["prompts"]) == len(row["rewards"]) for row in rows)
    assert {prompt for row in rows for prompt in row["prompts"]} == {0, 1}
    assert [part["prompt"] for part in summary["by_prompt"]] == ["a dog", "a cat"]
    assert [bool(row.get("held_out")) for row in rows] == [True, True, False]
    assert [row["optimiser_steps"] for row in rows] == ([0] * 3 if method == "anchors" else [4, 8, 12])

    generator, plain = NoiseGenerator.load(folder), load_pipeline(tiny_pipeline_folder, device="cpu")
    latents = generator.sample(["a dog", "a cat"], seed=0)
    assert latents.shape == (2, 4, 8, 8)
    own = Sampler(plain, num_steps=2)(latents, ["a dog", "a cat"])
    pictures = plain(["a dog", "a cat"], latents=latents, num_inference_steps=2, output_type="pt").images
    torch.testing.assert_close(own, pictures)


@pytest.mark.parametrize("failure", ["nan", "raise", "interrupt"])
@pytest.mark.parametrize("method", METHODS)
def test_what_stops_a_run_loses_nothing(method: str, failure: str, diffalign, quick) -> None:
    import own_reward

    assert diffalign(*quick(method, "--out", "whole")).code == 0
    # a batch a prompt; of round 1 a check of two prompts
    own_reward.calls, own_reward.fail_at, own_reward.failure = 0, 6, failure
    stopped = diffalign(*quick(method, "--out", "stopped"))
    assert stopped.code == (130 if failure == "interrupt" else 2)
    assert f"go on with: diffalign {method} --resume stopped" in stopped.err
    assert len(RunFolder(Path("stopped")).metrics()) == 1
    own_reward.fail_at = None
    assert diffalign(method, "--resume", "stopped").code == 0
    assert figures(Path("stopped")) == figures(Path("whole"))
    assert "is finished" in diffalign(method, "--resume", "stopped").err


@pytest.mark.parametrize(
    ("method", "more", "said"),
    [
        ("noise-ppo", ["--preset", "papers"], "did you mean 'paper'"),
        ("anchors", ["--preset", "paper"], "unknown preset 'paper'; choose one of: default"),
        ("noise-ppo", ["--patch", "3", "--preset", "paper"], "do not tile"),
        ("noise-ppo", ["--basis", "dct"], "basis must be"),
        ("noise-ppo", ["--components", "8"], "Unknown option: --components"),
        ("noise-ppo", ["--hidden-size", "7"], "a hidden_size of 7 does not split into 4 heads"),
        ("anchors", ["--prompts", "nowhere.txt"], "nowhere.txt"),
        ("anchors", ["--held-out", "nowhere.txt"], "nowhere.txt"),
        ("anchors", ["--rounds", "1", "--samples-per-prompt", "1"], "leave no prompt with two"),
        ("anchors", ["--components", "4"], "effective must be below components"),
        *(
            (method, ["--check-every", "0", flag, *value], f"{name} needs checks; give check_every too")
            for method in METHODS
            for flag, value, name in (
                ("--keep", ["2"], "keep"),
                ("--stop-on-alarm", ["true"], "stop_on_alarm"),
            )
        ),
    ],
)
def test_a_mistake_leaves_no_folder(method: str, more: list[str], said: str, diffalign, quick) -> None:
    done = diffalign(*(word for word in quick(method, *more) if word != "true"))
    assert done.code == 2 and said in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("method", METHODS)
def test_pictures_of_any_prompt_are_made_from_a_generator(method: str, diffalign, quick) -> None:
    assert diffalign(*quick(method, "--out", "generator")).code == 0
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
    assert diffalign(*quick(method, "--out", "generator"), "--overwrite").code == 0
    assert not Path("generator/evaluation-a-bird.json").exists()


def test_find_starts_where_a_generator_or_other_runs_ended(diffalign, quick, small) -> None:
    assert diffalign(*quick("anchors", "--out", "generator")).code == 0
    more = ["--components", 4]
    assert diffalign("find", "a dog", *small, *more, "--out", "cold").code == 0
    assert diffalign("find", "a dog", *small, *more, "--start", "generator", "--out", "warm").code == 0
    cold, warm = (RunFolder(Path(name)).metrics()[0]["rewards"] for name in ("cold", "warm"))
    assert cold != warm
    assert diffalign("distil", "warm", *small[:2], "--steps", 5, "--out", "distilled").code == 0
    assert diffalign("find", "a dog", *small, *more, "--start", "distilled", "--out", "again").code == 0
    assert (
        "there is no generator file x"
        in diffalign("find", "a dog", *small, "--start", "x", "--out", "no").err
    )
    other = ["--model", "world", "--queries", 5, "--start", "generator", "--out", "no"]
    assert "whose fingerprint is" in diffalign("find", "a dog", *other).err
    assert (
        "components must not be 0" in diffalign("find", "a", "--start", "generator", "--preset", "paper").err
    )
    assert "holds no noise.safetensors" in diffalign("distil", "generator").err
    assert not Path("no").exists()
