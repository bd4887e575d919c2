"""`search`: the best of many pictures, in a folder that can be gone on with as any other."""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from diffalign import load_artifact
from diffalign.artifacts import RunFolder
from diffalign.learners.result import SearchResult
from diffalign.rollout import as_bytes
from diffalign.run import session

FILES = {
    "config.yaml",
    "metrics.jsonl",
    "state.safetensors",
    "noises.safetensors",
    "best.png",
    "pictures",
    "reward_curve.png",
    "report.html",
    "summary.json",
}
ALGORITHMS = ("best-of-n", "halving", "zero-order", "spectral", "spectral-fresh")


@pytest.fixture
def quick(tiny_pipeline_folder: Path, workplace: Path) -> Callable[..., list[object]]:
    """A command of a search of 12 pictures, 4 a round, of which 3 are kept; previews have half the steps."""

    def command(prompt: str, *more: object) -> list[object]:
        options: dict[object, object] = {
            **{"--model": tiny_pipeline_folder, "--reward": "own_reward:red", "--num-steps": 2},
            **{"--queries": 12, "--keep": 3, "--batch-size": 4, "--neighbours": 4, "--population": 4},
            "--preview-steps": 1,
        }
        options |= dict(zip(more[::2], more[1::2], strict=True))
        return ["search", prompt, *(word for option in options.items() for word in option)]

    return command


def figures(folder: Path) -> dict[str, Any]:
    """The summary without seconds and memory, the noises, and the metrics without seconds."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["cost"]["seconds"], summary["cost"]["peak_memory_mb"]
    rows = RunFolder(folder).metrics()
    for row in rows:
        del row["seconds"], row["sampling_seconds"]
    found = SearchResult.load(folder)
    return {**summary, "rows": rows, "x_T": found.x_T.tolist(), "kept rewards": found.rewards.tolist()}


def test_search_keeps_the_best(diffalign, tiny_pipeline, tiny_pipeline_folder: Path) -> None:
    options = ["--model", tiny_pipeline_folder, "--num-steps", 2, "--reward", "own_reward:red"]
    done = diffalign("search", "a dog", *options, "--queries", 10, "--keep", 3, "--batch-size", 4)
    folder = Path("runs/search-a-dog")
    assert done.code == 0 and "the best 3 of 10" in done.out
    assert {file.name for file in folder.iterdir()} == FILES
    page = (folder / "report.html").read_text()
    assert "The best 3 of 10 by reward" in page and page.count("data:image/png") == 2
    summary = json.loads((folder / "summary.json").read_text())
    rewards = summary["kept"]["rewards"]
    assert rewards == sorted(rewards, reverse=True) and len(rewards) == 3
    diversity = summary["kept"]["diversity"]
    assert diversity["on"] == "pixels" and 0 < diversity["pairwise_distance"] <= 2
    assert rewards[0] >= summary["all"]["reward"]["mean"] and summary["all"]["reward"]["n"] == 10
    assert summary["cost"]["reward_queries"] == 10 and summary["cost"]["denoiser_forwards"] == 40
    rows = RunFolder(folder).metrics()
    assert [row["queries"] for row in rows] == [4, 8, 10]
    every = [reward for row in rows for reward in row["rewards"]]
    assert sorted(every, reverse=True)[:3] == pytest.approx(rewards)
    assert [every[index] for index in summary["kept"]["indices"]] == pytest.approx(rewards)
    with safe_open(folder / "noises.safetensors", "pt") as file:
        assert file.metadata()["prompt"] == "a dog"
    latents = load_file(folder / "noises.safetensors")["x_T"]
    pictures = tiny_pipeline(
        "a dog", latents=latents, num_images_per_prompt=3, num_inference_steps=2, output_type="pt"
    ).images
    import own_reward

    torch.testing.assert_close(own_reward.red(pictures, []), torch.tensor(rewards), atol=1e-3, rtol=0)
    more = ["--queries", 10, "--keep", 6, "--algorithm", "spectral", "--out", "half"]
    assert "at most half" in diffalign("search", "a dog", *options, *more).err


@pytest.mark.parametrize(
    ("algorithm", "call"),
    [*product(ALGORITHMS, [1, 2, 3]), ("spectral", 4), ("spectral-fresh", 4)],  # the last draws anew
)
def test_ctrl_c_then_resume_gives_the_same(
    algorithm: str, call: int, diffalign, quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    import own_reward

    monkeypatch.setattr(session, "SAVE_EVERY", 0.0)
    assert diffalign(*quick("a dog", "--algorithm", algorithm, "--out", "whole")).code == 0
    calls, own_reward.calls, own_reward.fail_at = own_reward.calls, 0, call
    stopped = diffalign(*quick("a dog", "--algorithm", algorithm, "--out", "x"))
    assert stopped.code == 130
    assert "state saved, go on with: diffalign search --resume x" in stopped.err
    made = sum(-(-len(row["rewards"]) // 4) for row in RunFolder(Path("x")).metrics())
    assert made == (
        call // 3 * 2 if algorithm == "halving" else call - 1
    )  # whose first round has two batches
    own_reward.calls, own_reward.fail_at = 0, None
    assert diffalign("search", "--resume", "x").code == 0
    assert own_reward.calls == calls - made  # nothing is made twice but the round that was stopped
    assert figures(Path("x")) == figures(Path("whole"))
    assert {file.name for file in Path("x").iterdir()} == FILES
    assert "x is finished" in diffalign("search", "--resume", "x").err


def test_presets_are_algorithms(diffalign, quick) -> None:
    for algorithm in ("zero-order", "spectral"):
        assert diffalign(*quick("a dog", "--algorithm", algorithm, "--out", algorithm)).code == 0
        assert diffalign(*quick("a dog", "--preset", algorithm, "--out", "preset"), "--overwrite").code == 0
        chosen, named = figures(Path("preset")), figures(Path(algorithm))
        assert chosen.pop("run")["preset"] == algorithm and named.pop("run")["preset"] == "default"
        assert chosen == named


@pytest.mark.parametrize("algorithm", ["spectral", "spectral-fresh"])
def test_what_previews_scored_is_not_said_of_pictures(algorithm: str, diffalign, quick) -> None:
    done = diffalign(*quick("a dog", "--algorithm", algorithm, "--out", "x"))
    assert done.code == 0, done.err
    assert "pictures of the best 3 of 9 previews by" in done.out and "of 12" not in done.out
    rows, summary = RunFolder(Path("x")).metrics(), json.loads(Path("x/summary.json").read_text())
    assert [row["previews"] for row in rows] == [4, 4, 1, 0]
    assert [row["queries"] for row in rows] == [4, 8, 9, 12]
    assert summary["description"] == "pictures of the best 3 of 9 previews"
    scores = [reward for row in rows[:-1] for reward in row["rewards"]]
    assert summary["previews"]["reward"]["n"] == 9
    assert summary["previews"]["reward"]["mean"] == pytest.approx(sum(scores) / 9)
    assert summary["all"]["reward"]["n"] == 3
    assert summary["all"]["reward"]["mean"] == pytest.approx(rows[-1]["reward_mean"])
    assert summary["cost"]["reward_queries"] == 12
    assert summary["cost"]["denoiser_forwards"] == 9 * 2 + 3 * 4  # guided, of 1 step and of 2


def test_the_best_preview_does_not_pass_for_a_picture(diffalign, quick, monkeypatch) -> None:
    import own_reward

    red = own_reward.red

    def flattering(images: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        return red(images, prompts) + (100 if own_reward.calls <= 3 else 0)  # the three rounds of previews

    monkeypatch.setattr(own_reward, "red", flattering)
    whole = diffalign(*quick("a dog", "--algorithm", "spectral", "--out", "whole"))
    own_reward.calls, own_reward.fail_at = 0, 4
    assert diffalign(*quick("a dog", "--algorithm", "spectral", "--out", "x")).code == 130
    own_reward.fail_at = None
    resumed = diffalign("search", "--resume", "x")
    previews, pictures = (RunFolder(Path("x")).metrics()[row]["reward_best"] for row in (0, -1))
    assert previews > 100 > pictures
    assert all(f"best {pictures:.2f} " in done.err for done in (whole, resumed))


def test_several_prompts_get_a_folder_each_and_go_on_where_they_stopped(diffalign, quick) -> None:
    import own_reward

    own_reward.fail_at = 5  # in the second prompt
    assert diffalign(*quick("a dog", "--out", "both"), "two cats").code == 130
    own_reward.fail_at = None
    done = diffalign("search", "--resume", "both")
    assert done.code == 0 and "both/a-dog is finished" in done.err and "the best 3 of 12" in done.out
    for name in ("a-dog", "two-cats"):
        assert {file.name for file in Path("both", name).iterdir()} == FILES
    Path("mine.txt").write_text("a dog\na cat\n")
    assert diffalign("search", "--prompts", "mine.txt", *quick("")[2:]).code == 0
    assert {folder.name for folder in Path("runs/search-mine").iterdir()} == {"a-dog", "a-cat"}
    assert figures(Path("runs/search-mine/a-dog"))["x_T"] == figures(Path("both/a-dog"))["x_T"]
    done = diffalign("generate", "runs/search-mine", "-n", 2)
    assert done.code == 0, done.err
    assert all(
        Path("runs/search-mine", name, "pictures/seed0-001.png").is_file() for name in ("a-dog", "a-cat")
    )


def test_generate_makes_the_kept_pictures_again(diffalign, quick, tiny_pipeline) -> None:
    assert diffalign(*quick("a dog", "--out", "x")).code == 0
    kept = {file.name: file.read_bytes() for file in Path("x/pictures").iterdir()}
    assert set(kept) == {*(f"seed0-{i:03d}.png" for i in range(3)), "prompt.txt"}
    done = diffalign("generate", "x", "-n", 3, "--batch-size", 4)
    assert done.code == 0, done.err
    found = load_artifact("x")
    assert isinstance(found, SearchResult) and found.metadata["queries"] == "12"
    images = tiny_pipeline(
        "a dog", latents=found.x_T, num_images_per_prompt=3, num_inference_steps=2, output_type="pt"
    ).images
    assert kept.items() <= {file.name: file.read_bytes() for file in Path("x/pictures").iterdir()}.items()
    for number, image in enumerate(as_bytes(images)):
        made = np.asarray(Image.open(f"x/pictures/seed0-{number:03d}.png"))
        np.testing.assert_array_equal(made, image.permute(1, 2, 0).numpy())
    assert Path("x/pictures/prompt.txt").read_text() == "a dog\n"
    for line, said in (
        (["generate", "x", "-n", 4], "the search kept 3 pictures; ask for at most as many"),
        (["generate", "x", "-n", 1, "--prompt", "a cat"], "x was learned for “a dog”; leave out --prompt"),
        (["evaluate", "x"], "x holds what a search kept, from which nothing fresh can be drawn"),
    ):
        done = diffalign(*line)
        assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert (
        diffalign("generate", "x", "-n", 4, "--frozen").code == 0
    )  # of which there are as many as one likes


def test_kept_noise_of_another_model_is_refused(diffalign, quick, other_pipeline_folder: Path) -> None:
    assert diffalign(*quick("a dog", "--out", "x")).code == 0
    kept = {file.name: file.read_bytes() for file in Path("x/pictures").iterdir()}
    assert set(kept) == {*(f"seed0-{i:03d}.png" for i in range(3)), "prompt.txt"}
    done = diffalign("generate", "x", "-n", 1, "--model", other_pipeline_folder)
    assert done.code == 2 and "whose fingerprint is" in done.err
    done = diffalign("generate", "x", "-n", 1, "--model", "world")
    assert done.code == 2 and "whose fingerprint is" in done.err
    assert {file.name: file.read_bytes() for file in Path("x/pictures").iterdir()} == kept


def test_a_search_that_chooses_or_moves_nowhere_says_so(diffalign, quick) -> None:
    half = diffalign(*quick("a dog", "--preset", "spectral", "--keep", 6, "--out", "x"))
    assert half.code == 2 and not Path("x").exists()
    assert "spectral would draw all its 6 previews of 12 queries again, and choose none" in half.err
    # where a preview is a picture, the best half is chosen
    all_steps = ["--preset", "spectral", "--keep", 6, "--preview-steps", 2, "--out", "all"]
    assert diffalign(*quick("a dog", *all_steps)).code == 0
    for preset, setting, number, drawn in (
        ("zero-order", "--neighbours", 12, 12),
        ("spectral", "--population", 9, 9),
        ("spectral-fresh", "--population", 9, 9),
    ):
        said = (
            f"{preset} moves after {number} samples, but draws {drawn} in all: it is no more than best-of-n"
        )
        for given, warned in ((number, True), (number - 1, False)):
            done = diffalign(
                *quick("a dog", "--preset", preset, setting, given, "--out", f"{preset}-{given}")
            )
            assert done.code == 0 and (said in done.err) == warned
