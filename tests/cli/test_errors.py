"""A user's mistake is one line that says what to do, and costs nothing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffalign import NoiseDistribution

BEFORE_ANYTHING_IS_LOADED = [
    ("finnd a", 'Did you mean "find"?'),
    ("find a --querys 3", "Did you mean --queries?"),
    ("find", "no prompt"),
    ("find ''", "the prompt is empty"),
    ("search ' '", "the prompt is empty"),
    ("find a --prompts world/common", "not both"),
    ("find --prompts world/comon", "did you mean 'world/common'?"),
    ("find --prompts none.txt", "no prompt file 'none.txt'"),
    ("find a --queries 0", "queries must be at least 1, not 0"),
    ("find a --batch 0", "batch must be at least 1, not 0"),
    ("find a --clip-range 2", "clip_range must be at least 0 and below 1, not 2.0"),
    ("find a --advantage rnk", 'Choose from: "drcm", "rank"'),
    ("find a --basis dkt3", "basis must be identity, or dctK"),
    ("find a --queries many", 'unable to convert "many" into int'),
    ("find a --num-steps -1", "num_steps must be at least 1, not -1"),
    ("find a --batch-size 0", "batch_size must be at least 1, not 0"),
    ("find a --images 0", "images must be at least 1, not 0"),
    (
        "find a --preset papr",
        "unknown preset 'papr'; choose one of: default, paper, paper-no-drcm, paper-no-rca (did you mean "
        "'paper'?)",
    ),
    ("find a --dtype float23", "float32"),
    ("find a --threads 0", "Must be >= 1"),
    ("find a --reward world-clipp --judge none", "did you mean 'world-clip'?"),
    ("find a --reward own_reward:rad", "has no 'rad'"),
    ("find a --reward no_such_module:f", "No module named 'no_such_module'"),
    ("find a --reward own_reward:not_callable", "a reward is a function"),
    ("find 'a smurf' --reward world-scene", "unknown thing 'smurf'"),
    ("find 'a grean dog' --judge world-scene", "did you mean 'green'?"),
    ("find a --no-calibration", "Unknown option: --no-calibration"),
    ("find a --config none.yaml", "cannot read the settings none.yaml"),
    ("find --resume none", "there is no run to resume in none"),
    ("find --resume none --queries 3", "leave out --queries"),
    ("find --resume none --config x --preset paper", "leave out --config, --preset"),
    ("find a --resume none", "leave out PROMPT"),
    ("find --resume none --out x", "leave out --out"),
    ("find --resume none --overwrite", "leave out --overwrite"),
    ("find a --resume", "there is no run to resume in runs/a"),
    ("search a --queries 3 --keep 4", "cannot keep 4 of 3"),
    ("search a --queries 0", "queries must be at least 1, not 0"),
    ("generate none", "there is no none; give the folder of a run"),
    ("generate", "RUN"),
    ("evaluate none.safetensors", "there is no none.safetensors"),
    ("report none", "there is no finished run in none"),
    ("prompts drawbnch", "did you mean 'drawbench'?"),
]


@pytest.mark.parametrize(("line", "said"), BEFORE_ANYTHING_IS_LOADED)
def test_a_mistake_is_said_at_once(line: str, said: str, diffalign) -> None:
    import shlex

    done = diffalign(*shlex.split(line))
    assert done.code == 2
    assert said in done.err
    assert done.err.startswith("error: ") and "Traceback" not in done.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "wrld"], "or a hub name such as 'owner/model' (did you mean 'world'?)"),
        (["--model", "empty"], "is no saved pipeline"),
        (["--model", "./none"], "there is no folder ./none"),
        (["--model", "owner/none"], "`hf download owner/none` fetches it"),
        (["--device", "tpu9"], "cannot use the device 'tpu9'"),
        (["--judge", "world-scene"], "judge world-scene reads 64×64 pictures, but this model makes 16×16"),
        (["--reward", "world-clip"], "reward world-clip reads 64×64 pictures, but this model makes 16×16"),
        (["--reward", "world-scene"], "reward world-scene reads 64×64 pictures, but this model makes 16×16"),
    ],
)
def test_a_model_that_does_not_fit_leaves_no_folder(
    options: list[str], said: str, diffalign, tiny_pipeline_folder: Path
) -> None:
    Path("empty").mkdir()
    model = [] if "--model" in options else ["--model", tiny_pipeline_folder]
    reward = [] if "--reward" in options else ["--reward", "own_reward:red"]
    for command in ("find", "search"):
        done = diffalign(command, "a dog", *reward, *model, *options)
        assert done.code == 2 and said in done.err and "Traceback" not in done.err
        assert not Path("runs").exists()


def test_a_reward_that_nobody_named_is_said(diffalign, tiny_pipeline_folder: Path) -> None:
    Path("a.txt").write_text("a dog\na cat\n")
    for command in (["find", "a dog"], ["compare", "--prompts", "a.txt"]):
        done = diffalign(*command, "--model", tiny_pipeline_folder)
        assert done.code == 2 and "no --reward was given: world-clip, the embedded world's" in done.err
    asked = diffalign("doctor", "--model", tiny_pipeline_folder, "--prompts", "a.txt")
    assert asked.code == 2 and "Name the reward with --reward" in asked.err


def test_what_a_kill_left_before_a_run_began_is_no_run(diffalign) -> None:
    Path("x").mkdir()
    Path("x/config.yaml.partial").write_text("prompt: a d")
    for command in ("find", "search"):
        done = diffalign(command, "a", "--out", "x", "--reward", "own_reward:red", "--model", "wrld")
        assert done.code == 2 and "unknown model 'wrld'" in done.err


@pytest.fixture
def stochastic(tiny_pipeline_folder: Path, workplace: Path) -> Path:
    """The tiny pipeline with a scheduler that adds noise on the way."""
    folder = shutil.copytree(tiny_pipeline_folder, workplace / "ancestral")
    for name in ("model_index.json", "scheduler/scheduler_config.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("DDIMScheduler", "EulerAncestralDiscreteScheduler"))
    return folder


def test_a_scheduler_that_adds_noise_is_warned_of(diffalign, stochastic: Path) -> None:
    options = ["--model", stochastic, "--reward", "own_reward:red", "--num-steps", 2, "--queries", 5]
    more = {"find": ["--batch", 2, "--images", 2, "--no-baselines"], "search": ["--keep", 1]}
    for command, few in more.items():
        done = diffalign(command, "a dog", *options, *few)
        assert done.code == 0
        assert "EulerAncestralDiscreteScheduler adds noise on the way" in done.err
        assert "not reproducible; use --scheduler ddim" in done.err
    done = diffalign("search", "a dog", *options, "--keep", 1, "--scheduler", "ddim", "--overwrite")
    assert done.code == 0 and "not reproducible" not in done.err


def test_an_output_folder_that_is_taken_stays_as_it_is(diffalign, small) -> None:
    Path("file").write_text("mine")
    Path("other").mkdir()
    Path("other/thesis.txt").write_text("mine")
    for out, said in (("file", "is a file"), ("other", "holds files that are not a run")):
        for more in ([], ["--overwrite"]):
            done = diffalign("find", "a dog", *small, "--out", out, *more)
            assert done.code == 2 and said in done.err
            done = diffalign("search", "a dog", "--out", out, *more)
            assert done.code == 2 and said in done.err
    assert Path("file").read_text() == Path("other/thesis.txt").read_text() == "mine"


def test_one_taken_folder_of_several_stops_all(diffalign, small) -> None:
    Path("both/two-cats").mkdir(parents=True)
    Path("both/two-cats/thesis.txt").write_text("mine")
    assert diffalign("find", "a dog", "two cats", *small, "--out", "both").code == 2
    assert not Path("both/a-dog").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("queries: [", "not YAML"),
        ("just words", "holds no settings"),
        ("querys: 3", "querys"),
        ("queries: many", "unable to convert"),
        ("queries: 0", "queries must be at least 1"),
        ("num_steps: 0", "num_steps must be at least 1"),
        ("preset: papr", "unknown preset 'papr'"),
    ],
)
def test_a_settings_file_is_checked_as_flags_are(content: str, said: str, diffalign) -> None:
    Path("mine.yaml").write_text(content)
    done = diffalign("find", "a dog", "--config", "mine.yaml")
    assert done.code == 2 and said in done.err
    if "querys" in content or "many" in content:
        assert "mine.yaml" in done.err


def noise(**metadata: str) -> NoiseDistribution:
    shape = (4, 8, 8)
    return NoiseDistribution(torch.zeros(shape), torch.ones(shape), shape, "identity", metadata)


@pytest.fixture
def recorded(tiny_pipeline: Any, tiny_pipeline_folder: Path) -> dict[str, str]:
    from diffalign.diffusion import fingerprint

    return {
        "model": str(tiny_pipeline_folder),
        "model_fingerprint": fingerprint(tiny_pipeline),
        "prompt": "a dog",
        "scheduler": "DDIMScheduler",
        "num_steps": "2",
        "guidance_scale": "7.5",
        "reward": "own_reward:red",
    }


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_file_that_is_no_noise_is_refused(command: str, diffalign, recorded) -> None:
    noise(**recorded).save("good.safetensors")
    good = Path("good.safetensors").read_bytes()
    Path("truncated").write_bytes(good[:-100])
    Path("cut").write_bytes(good[:20])
    Path("pickled").write_bytes(b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n.")
    Path("empty").write_bytes(b"")
    Path("text").write_text(json.dumps({"mean": 1}))
    save_file({"weight": torch.zeros(3)}, "other.safetensors")
    for name in ("truncated", "cut", "pickled", "empty", "text"):
        done = diffalign(command, name)
        assert done.code == 2 and "corrupt, truncated or no safetensors file" in done.err
    done = diffalign(command, "other.safetensors")
    assert done.code == 2 and "other.safetensors is a safetensors file of the format None" in done.err


def test_noise_of_another_model_is_refused(diffalign, recorded, other_pipeline_folder: Path) -> None:
    noise(**recorded).save("noise.safetensors")
    done = diffalign("generate", "noise.safetensors", "--model", other_pipeline_folder)
    assert done.code == 2 and "was learned for the model" in done.err
    small = NoiseDistribution(torch.zeros(4, 4, 4), torch.ones(4, 4, 4), (4, 4, 4), "identity", recorded)
    small.save("noise.safetensors")
    done = diffalign("generate", "noise.safetensors")
    assert done.code == 2 and "(4, 4, 4)" in done.err and "(4, 8, 8)" in done.err
    assert not Path("pictures").exists()


@pytest.mark.parametrize("missing", ["model", "num_steps", "guidance_scale", "scheduler", "prompt"])
def test_noise_that_does_not_say_what_it_is_for_is_refused(missing: str, diffalign, recorded) -> None:
    del recorded[missing]
    noise(**recorded).save("noise.safetensors")
    done = diffalign("generate", "noise.safetensors")
    assert done.code == 2 and f"('{missing}')" in done.err


def test_noise_learned_in_half_precision_makes_pictures_on_a_cpu(diffalign, recorded) -> None:
    noise(**recorded).save("float32.safetensors")
    noise(**recorded, dtype="float16").save("float16.safetensors")
    noise(**recorded, dtype="float23").save("float23.safetensors")
    pictures = {}
    for name, more in (
        ("float32", []),
        ("float16", []),
        ("float16", ["--dtype", "bfloat16"]),
    ):
        done = diffalign("generate", f"{name}.safetensors", "-n", 1, "--device", "cpu", *more)
        assert done.code == 0
        assert ("made in float32 on this CPU" in done.err) == (name == "float16" and not more)
        pictures[name, *more] = Path("pictures/seed0-000.png").read_bytes()
    assert pictures["float16",] == pictures["float32",]
    assert pictures["float16", "--dtype", "bfloat16"] != pictures["float32",]
    done = diffalign("generate", "float23.safetensors")
    assert done.code == 2 and "unknown dtype 'float23'" in done.err
    done = diffalign("evaluate", "float16.safetensors", "--device", "cpu", "--images", 2)
    assert done.code == 0 and "made in float32 on this CPU" in done.err
    done = diffalign("evaluate", "float32.safetensors", "--reward", "world-scene", "--judge", "none")
    assert done.code == 2 and "reward world-scene reads 64×64 pictures" in done.err


def test_evaluate_asks_for_a_reward_that_is_gone(diffalign, recorded) -> None:
    noise(**{**recorded, "reward": "gone"}).save("noise.safetensors")
    done = diffalign("evaluate", "noise.safetensors")
    assert done.code == 2 and "unknown reward 'gone'" in done.err and "--reward" in done.err


def test_a_full_disk_while_pictures_are_written(diffalign, recorded, monkeypatch) -> None:
    from PIL import Image

    noise(**recorded).save("noise.safetensors")

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    done = diffalign("generate", "noise.safetensors")
    assert done.code == 2 and "No space left on device" in done.err
    assert "--resume" not in done.err and "state" not in done.err


def test_debug_shows_the_traceback(diffalign) -> None:
    from diffalign.rewards import RewardError

    with pytest.raises(RewardError):
        diffalign("find", "a", "--reward", "nothing", "--debug")


def test_a_fault_of_the_code_is_not_hidden(diffalign, small, monkeypatch) -> None:
    from diffalign.run import setup

    def faulty(*arguments: Any, **more: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(setup, "evaluate", faulty)
    with pytest.raises(ZeroDivisionError):
        diffalign("find", "a dog", *small)
