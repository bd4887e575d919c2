import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open

from diffalign import NoiseDistribution, load_pipeline
from diffalign.artifacts import RunFolder
from diffalign.cli import run
from diffalign.run import session
from tests.processes import Process

FILES = {
    "config.yaml",
    "metrics.jsonl",
    "state.safetensors",
    "noise.safetensors",
    "before_after.png",
    "reward_curve.png",
    "summary.json",
    "report.html",
}
PROMPT = "a green dog on the moon"


def figures(folder: Path) -> dict[str, Any]:
    """The summary without seconds and memory, and the learned noise."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    noise = NoiseDistribution.load(folder)
    rewards = [line["rewards"] for line in RunFolder(folder).metrics()]
    return {
        **summary,
        "noise": (noise.mean.tolist(), noise.std.tolist(), dict(noise.metadata)),
        "rewards": rewards,
    }


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, small: list[object], reward_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run([str(token) for token in ("find", PROMPT, *small, "--out", folder)]) == 0
    return folder


@pytest.fixture
def whole(workplace: Path, whole_run: Path) -> dict[str, Any]:
    """The figures of an uninterrupted run, whose folder is `whole`."""
    shutil.copytree(whole_run, workplace / "whole")
    return figures(whole_run)


def test_a_run_leaves_its_folder_and_says_what_it_gained(diffalign, small, tiny_pipeline_folder) -> None:
    done = diffalign("find", PROMPT, *small)
    folder = Path("runs/a-green-dog-on-the-moon")
    assert done.code == 0
    assert {file.name for file in folder.iterdir()} == FILES
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["rows"]) == {"baseline", "best_of_n", "tuned"}
    assert summary["model"] == str(tiny_pipeline_folder) and summary["reward"] == "own_reward:red"
    # 2 steps, guided: 4 forwards a picture
    assert {k: (c["reward_queries"], c["denoiser_forwards"]) for k, c in summary["cost"].items()} == {
        "baseline": (0, 6 * 4),
        "best_of_n": (18, 18 * 4),
        "tuned": (12, 18 * 4),
    }
    for word in ("frozen model", "best of N", "learned", "noise.safetensors", "report.html"):
        assert word in done.out
    assert f"diffalign generate {folder} -n 16" in done.err
    assert "learn: 12/12" in done.err  # a line, as this is no terminal
    lines = RunFolder(folder).metrics()
    assert [line["queries"] for line in lines] == [4, 8, 12]


def test_noise_says_what_it_is_for(diffalign, small, tiny_pipeline_folder, tiny_pipeline) -> None:
    diffalign("find", PROMPT, *small, "--seed", 5, "--out", "x")
    with safe_open("x/noise.safetensors", "pt") as file:
        metadata = file.metadata()
    assert metadata["model"] == str(tiny_pipeline_folder)
    assert metadata["prompt"] == PROMPT and metadata["reward"] == "own_reward:red" and metadata["seed"] == "5"
    assert metadata["num_steps"] == "2" and metadata["guidance_scale"] == "7.5"
    assert metadata["scheduler"] == "DDIMScheduler" and metadata["torch"] == torch.__version__


def test_config_makes_the_same_run(diffalign, small, whole) -> None:
    assert diffalign("find", "--config", "whole/config.yaml", "--out", "again").code == 0
    assert figures(Path("again")) == whole
    assert diffalign("find", "a cat", "--config", "whole/config.yaml", "--seed", 3, "--out", "cat").code == 0
    config = yaml.safe_load(Path("cat/config.yaml").read_text())
    assert (config["prompt"], config["seed"], config["queries"]) == ("a cat", 3, 12)


def test_recorded_command_makes_the_same_run(diffalign, small, whole) -> None:
    import shlex

    tokens = shlex.split(whole["run"]["command"])
    assert tokens[0] == "diffalign"
    assert diffalign(*tokens[1:], "--out", "again").code == 0
    assert figures(Path("again")) == whole


@pytest.mark.parametrize("call", [1, 2, 3, 4, 6, 9])
def test_ctrl_c_then_resume_gives_the_same(call: int, diffalign, small, whole, monkeypatch) -> None:
    """In an update (calls 1 to 3), the evaluation (4 to 7) or the search (8 to 12)."""
    import own_reward

    monkeypatch.setattr(session, "SAVE_EVERY", 0.0)
    own_reward.calls, own_reward.fail_at = 0, call
    stopped = diffalign("find", PROMPT, *small, "--out", "x")
    assert stopped.code == 130
    assert "state saved, go on with: diffalign find --resume x" in stopped.err
    own_reward.fail_at = None
    assert diffalign("find", "--resume", "x").code == 0
    assert figures(Path("x")) == whole


@pytest.mark.parametrize("preset", ["paper", "paper-no-drcm", "paper-no-rca"])
def test_the_paper_resumes_too(preset: str, diffalign, small) -> None:
    import own_reward

    options = [*small[:6], "--queries", 5, "--images", 3, "--no-baselines", "--preset", preset]
    assert diffalign("find", PROMPT, *options, "--out", "whole").code == 0
    own_reward.calls, own_reward.fail_at = 0, 4
    assert diffalign("find", PROMPT, *options, "--out", "x").code == 130
    own_reward.fail_at = None
    assert diffalign("find", "--resume", "x").code == 0
    assert figures(Path("x")) == figures(Path("whole"))
    assert set(figures(Path("x"))["rows"]) == {"baseline", "tuned"}


def test_a_run_records_the_sampling_that_its_preset_set(diffalign, small) -> None:
    """The final values stand in config.yaml, and its command makes the same run."""
    import shlex

    options = [*small[:4], "--queries", 2, "--images", 2, "--no-baselines", "--preset", "paper"]
    assert diffalign("find", PROMPT, *options, "--num-steps", 2, "--out", "whole").code == 0
    content = yaml.safe_load(Path("whole/config.yaml").read_text())
    assert (content["num_steps"], content["guidance_scale"], content["scheduler"]) == (2, 7.5, "ddim")
    command = figures(Path("whole"))["run"]["command"]
    assert "--num-steps 2" in command and "guidance" not in command and "scheduler" not in command
    assert diffalign(*shlex.split(command)[1:], "--out", "again").code == 0
    assert figures(Path("again")) == figures(Path("whole"))


@pytest.mark.parametrize(
    ("failure", "said"),
    [("nan", "returned nan for picture 0"), ("shape", ", 1) for"), ("raise", "no connection")],
)
@pytest.mark.parametrize("call", [2, 5])
def test_a_reward_that_fails_loses_nothing(
    call: int, failure: str, said: str, diffalign, small, whole
) -> None:
    import own_reward

    own_reward.calls, own_reward.fail_at, own_reward.failure = 0, call, failure
    stopped = diffalign("find", PROMPT, *small, "--out", "x")
    assert stopped.code == 2
    assert said in stopped.err and "go on with: diffalign find --resume x" in stopped.err
    assert "Traceback" not in stopped.err
    own_reward.fail_at = None
    assert diffalign("find", "--resume", "x").code == 0
    assert figures(Path("x")) == whole


def test_resuming_a_finished_run_says_so(diffalign, small, whole) -> None:
    done = diffalign("find", "--resume", "whole")
    assert done.code == 0 and "whole is finished" in done.err
    assert figures(Path("whole")) == whole


def test_resume_takes_the_model_and_the_reward_of_each_folder(
    diffalign, small, other_pipeline_folder: Path
) -> None:
    few = [*small[:6], "--queries", 5, "--batch", 2, "--images", 2, "--no-baselines"]
    other = ["--model", other_pipeline_folder, "--reward", "own_reward:green", "--num-steps", 3]
    for name, options in (("one", few), ("two", [*few[6:], *other])):
        assert diffalign("find", PROMPT, *options, "--out", f"whole/{name}").code == 0
        Path("x", name).mkdir(parents=True)
        shutil.copy(f"whole/{name}/config.yaml", f"x/{name}")
    done = diffalign("find", "--resume", "x")
    assert done.code == 0
    for name in ("one", "two"):
        assert figures(Path("x", name)) == figures(Path("whole", name))


def test_resume_leaves_out_what_is_no_run_of_find(diffalign, small, whole) -> None:
    for name, config in (
        ("search-a-dog", {"method": "search", "prompt": "a dog", "queries": 10, "keep": 3}),
        ("compare", {"method": "compare", "prompts": "world/heldout"}),
        ("mine", {"learning_rate": 0.1}),
    ):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "config.yaml").write_text(yaml.safe_dump(config))
        refused = diffalign("find", "--resume", f"runs/{name}")
        assert refused.code == 2 and "was not written by diffalign find" in refused.err
    Path("whole").rename("runs/whole")
    done = diffalign("find", "--resume", "runs")
    assert done.code == 0 and "runs/whole is finished" in done.err
    assert "runs/search-a-dog is left out" in done.err and "runs/mine is left out" in done.err
    assert "runs/compare/config.yaml was not written by diffalign find but by diffalign compare" in done.err


def test_resume_refuses_another_model_and_other_settings(
    diffalign, small, tiny_pipeline_folder: Path, other_pipeline_folder: Path
) -> None:
    import own_reward

    shutil.copytree(tiny_pipeline_folder, "model")
    own_reward.fail_at = 2
    assert diffalign("find", PROMPT, "--model", "model", *small[2:], "--out", "x").code == 130
    own_reward.fail_at = None
    state = Path("x/state.safetensors").read_bytes()
    shutil.rmtree("model")
    shutil.copytree(other_pipeline_folder, "model")
    config = Path("x/config.yaml")
    config.write_text(config.read_text().replace("num_steps: 2", "num_steps: 3"))
    refused = diffalign("find", "--resume", "x")
    assert refused.code == 2 and "was learned otherwise: model fingerprint '" in refused.err
    assert "num steps '2' then, '3' now" in refused.err
    assert "go on with" not in refused.err and "scheduler" not in refused.err
    assert Path("x/state.safetensors").read_bytes() == state


def test_a_run_of_another_process_is_left_alone(diffalign, small, whole) -> None:
    pytest.importorskip("fcntl")
    Path("whole/report.html").unlink()
    with RunFolder(Path("whole")).lock():
        for line in (
            ["--resume", "whole"],
            [PROMPT, *small, "--out", "whole", "--overwrite"],
        ):
            refused = diffalign("find", *line)
            assert refused.code == 2 and "another process is running in whole" in refused.err
            assert "go on with" not in refused.err
    assert figures(Path("whole")) == whole


def test_resume_finds_the_folder_of_the_prompt(diffalign, small) -> None:
    assert diffalign("find", PROMPT, *small).code == 0
    done = diffalign("find", PROMPT, "--resume")
    assert done.code == 0 and "runs/a-green-dog-on-the-moon is finished" in done.err


def test_several_prompts_get_a_folder_each_and_go_on_where_they_stopped(diffalign, small) -> None:
    import own_reward

    own_reward.fail_at = 14  # in the second prompt
    assert diffalign("find", "a dog", "two cats", *small, "--out", "both").code == 130
    own_reward.fail_at = None
    done = diffalign("find", "--resume", "both")
    assert done.code == 0 and "both/a-dog is finished" in done.err
    for name in ("a-dog", "two-cats"):
        assert {file.name for file in Path("both", name).iterdir()} == FILES


def test_resume_goes_on_with_the_prompts_that_are_named_alone(diffalign, small) -> None:
    import own_reward

    Path("mine.txt").write_text("a dog\na cat\n")
    own_reward.fail_at = 14
    assert diffalign("find", "--prompts", "mine.txt", *small).code == 130
    Path("runs/other").mkdir()
    shutil.copy("runs/mine/a-dog/config.yaml", "runs/other")
    own_reward.fail_at = None
    done = diffalign("find", "--prompts", "mine.txt", "--resume")
    assert done.code == 0 and "runs/mine/a-dog is finished" in done.err
    assert Path("runs/mine/a-cat/report.html").is_file()
    assert [file.name for file in Path("runs/other").iterdir()] == ["config.yaml"]
    done = diffalign("find", "a dog", "a cat", "--resume", "--out", "runs/mine")
    assert done.code == 0 and done.err.count("is finished") == 2


def test_a_prompt_file(diffalign, small) -> None:
    Path("mine.txt").write_text("a dog\na cat\n")
    done = diffalign("find", "--prompts", "mine.txt", *small, "--no-baselines")
    assert done.code == 0 and "Gains of the learned noise" in done.out
    assert {folder.name for folder in Path("runs/mine").iterdir()} == {"a-dog", "a-cat"}


def test_diversity_of_what_was_learned(diffalign, small, whole) -> None:
    given = [*small, "--no-baselines"]
    assert diffalign("find", PROMPT, *given, "--diversity", 1, "--out", "wide").code == 0
    wide, learned = (NoiseDistribution.load(Path(name)) for name in ("wide", "whole"))
    assert wide.weights is not None and wide.weights.unique().numel() == 1
    torch.testing.assert_close(wide.mean, learned.mean)  # it learns alike
    for name in ("wide", "whole"):
        assert diffalign("generate", name, "-n", 4, "--diversity", 0.5, "--out", f"{name}-4").code == 0
    assert diffalign("generate", "whole", "-n", 4, "--out", "plain").code == 0
    pictures = [Path(name, "seed0-grid.png").read_bytes() for name in ("whole-4", "plain", "wide-4")]
    assert len(set(pictures)) > 1
    assert diffalign("evaluate", "whole", "--images", 2, "--diversity", 0.5).code == 0
    assert json.loads(Path("whole/evaluation-diversity-0.5.json").read_text())["run"]["diversity"] == 0.5
    assert diffalign("generate", "whole", "-n", 3).code == 0
    assert diffalign("generate", "whole", "-n", 2).code == 0  # no third of another command stays
    assert len(list(Path("whole/pictures").glob("seed0-*.png"))) == 2 + 1
    assert diffalign("generate", "whole", "-n", 2, "--diversity", 0.5).code == 0
    assert len(list(Path("whole/pictures-diversity-0.5").glob("seed0-*.png"))) == 2 + 1
    gaussian = ["find", PROMPT, *given, "--components", 0, "--out", "one"]
    refused = diffalign(*gaussian, "--diversity", 0.5)
    assert refused.code == 2 and "diversity is of a mixture: components must not be 0" in refused.err
    assert diffalign(*gaussian).code == 0
    searched = ["search", PROMPT, *small[:6], "--queries", 2, "--keep", 1, "--out", "kept"]
    assert diffalign(*searched).code == 0
    for name in ("one", "kept"):
        refused = diffalign("generate", name, "-n", 1, "--diversity", 0.5)
        assert refused.code == 2 and f"{name} holds no mixture of noise" in refused.err
    for value in ("-0.1", "2", "nan"):
        assert diffalign("generate", "whole", "--diversity", value).code == 2


def test_overwrite_starts_anew(diffalign, small, whole) -> None:
    diffalign("generate", "whole", "-n", 1)
    refused = diffalign("find", PROMPT, *small, "--out", "whole")
    assert refused.code == 2 and "holds another run" in refused.err
    assert figures(Path("whole")) == whole
    assert diffalign("find", "a cat", *small, "--out", "whole", "--overwrite").code == 0
    assert figures(Path("whole"))["prompt"] == "a cat"
    assert list(Path("whole/pictures").iterdir()) == []
    Path("whole/pictures").rmdir()
    searched = ["search", "a cat", *small[:6], "--queries", 2, "--keep", 1, "--out", "whole", "--overwrite"]
    assert diffalign(*searched).code == 0
    found = {"config.yaml", "metrics.jsonl", "state.safetensors"}
    found |= {"noises.safetensors", "best.png", "pictures", "reward_curve.png", "summary.json", "report.html"}
    assert {file.name for file in Path("whole").iterdir()} == found
    assert diffalign("find", PROMPT, *small, "--out", "whole", "--overwrite").code == 0
    assert list(Path("whole/pictures").iterdir()) == []
    Path("whole/pictures").rmdir()
    assert {file.name for file in Path("whole").iterdir()} == FILES
    assert figures(Path("whole")) == whole


def test_a_state_that_does_not_fit_is_refused(diffalign, small, whole) -> None:
    Path("whole/report.html").unlink()
    config = Path("whole/config.yaml")
    config.write_text(config.read_text().replace("basis: identity", "basis: dct3"))
    refused = diffalign("find", "--resume", "whole")
    assert refused.code == 2 and "does not fit its config.yaml" in refused.err
    assert "go on with" not in refused.err
    Path("whole/state.safetensors").write_bytes(b"\x80\x04pickle")
    refused = diffalign("find", "--resume", "whole")
    assert refused.code == 2 and "corrupt, truncated or no safetensors file" in refused.err
    assert "delete it to start the run again with --resume" in refused.err
    assert "go on with" not in refused.err


def test_a_full_disk_leaves_a_run_that_goes_on(diffalign, small, whole, monkeypatch) -> None:
    from diffalign import files

    save, times = files.save_file, []

    def full(*arguments: Any) -> None:
        times.append(1)
        if len(times) > 1:
            raise OSError(28, "No space left on device")
        save(*arguments)

    monkeypatch.setattr(session, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(files, "save_file", full)
    stopped = diffalign("find", PROMPT, *small, "--out", "x")
    assert stopped.code == 2 and "No space left on device" in stopped.err
    assert "diffalign find --resume x" in stopped.err
    assert not list(Path("x").glob("*.partial"))
    monkeypatch.setattr(files, "save_file", save)
    assert diffalign("find", "--resume", "x").code == 0
    assert figures(Path("x")) == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_process_that_is_stopped_goes_on_to_the_same(
    number: int, code: int, diffalign, small, whole, reward_folder: Path, workplace: Path
) -> None:
    slowly = ["own_reward:slow" if option == "own_reward:red" else str(option) for option in small]
    line = ["diffalign", "find", PROMPT, *slowly, "--out", "x", "--threads", "1", "--quiet"]
    process = Process(line, workplace, {"PYTHONPATH": str(reward_folder)})
    calls = workplace / "calls.txt"
    while process.process.is_alive() and not (calls.exists() and len(calls.read_text()) > 2):
        time.sleep(0.02)
    assert process.stop(number) == code
    err = process.err.read_text()
    said = "interrupted\nstate saved, go on with: diffalign find --resume x\n"
    assert err == (said if number == signal.SIGINT else "")
    assert diffalign("find", "--resume", "x").code == 0
    resumed = figures(Path("x"))
    for part in ("rows", "gain", "cost", "rewards"):
        assert resumed[part] == whole[part]
    assert resumed["noise"][:2] == whole["noise"][:2]


def test_pictures_are_those_of_plain_diffusers(
    diffalign: Callable[..., Any], whole, tiny_pipeline_folder: Path
) -> None:
    import numpy as np
    from PIL import Image

    assert diffalign("generate", "whole", "-n", 5, "--seed", 7, "--out", "out").code == 0
    noise = NoiseDistribution.load("whole")
    pictures = load_pipeline(tiny_pipeline_folder, device="cpu")(
        PROMPT,
        latents=noise.sample(5, 7),
        num_images_per_prompt=5,
        num_inference_steps=2,
        guidance_scale=7.5,
    ).images
    for index, picture in enumerate(pictures):
        ours = np.asarray(Image.open(f"out/seed7-{index:03d}.png"))
        np.testing.assert_array_equal(ours, np.asarray(picture))
    assert Path("out/seed7-grid.png").is_file()
