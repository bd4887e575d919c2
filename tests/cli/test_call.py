"""Further arguments of the pipeline's call: given, recorded, and given again where pictures are made anew."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from diffalign import NoiseDistribution, find
from diffalign.cli import run
from diffalign.files import ArtifactError
from diffalign.run.opening import open_artifact
from diffalign.settings.fields import ConfigError
from diffalign.settings.sampling import Sampling, written

GIVEN = (
    "--negative-prompt",
    "ugly, a cat",
    "--height",
    "24",
    "--call",
    "guidance_rescale=0.5",
    "--call",
    "width=32",
)


@pytest.fixture
def learned(
    workplace: Path,
    tiny_pipeline_folder: Path,
) -> Path:
    """A run with `GIVEN`."""
    sampled = ("--model", tiny_pipeline_folder, "--num-steps", "2", "--reward", "own_reward:red")
    asked = ("find", "a dog", *sampled, "--queries", "6", "--images", "2", *GIVEN, "--out", "run")
    assert run([str(token) for token in asked]) == 0
    return workplace / "run"


def test_an_artefact_is_opened_with_the_arguments_of_learning(learned: Path, tiny_pipeline: Any) -> None:
    opened = open_artifact(learned)
    call = {"negative_prompt": "ugly, a cat", "height": 24, "guidance_rescale": 0.5, "width": 32}
    assert opened.sampler.given == call and json.loads(opened.metadata["call"]) == call
    x_T = opened.latents("a dog", 2, 0)
    assert x_T.shape == (2, 4, 12, 16)
    call |= {"num_images_per_prompt": 2, "num_inference_steps": 2, "output_type": "pt"}
    plain = tiny_pipeline("a dog", latents=x_T, **call).images
    torch.testing.assert_close(opened.sampler(x_T, "a dog"), plain, atol=1e-5, rtol=0)
    del call["negative_prompt"]
    assert (tiny_pipeline("a dog", latents=x_T, **call).images - plain).abs().max() > 1e-3


def test_settings_and_command_keep_them(learned: Path) -> None:
    settings = yaml.safe_load((learned / "config.yaml").read_text())
    assert (
        settings["call"] == ["guidance_rescale=0.5", "width=32"]
        and settings["negative_prompt"] == "ugly, a cat"
    )
    command = json.loads((learned / "summary.json").read_text())["run"]["command"]
    assert "--call guidance_rescale=0.5 --call width=32" in command
    assert run(["find", "--config", str(learned / "config.yaml"), "--out", "again"]) == 0
    one, other = (NoiseDistribution.load(folder) for folder in (learned, learned.parent / "again"))
    assert one.mean.equal(other.mean) and one.metadata == other.metadata


def test_a_tune_run_is_opened_with_them_too(workplace: Path, tiny_pipeline_folder: Path) -> None:
    (workplace / "p.txt").write_text("a dog\na cat\n")
    sampled = ("--model", tiny_pipeline_folder, "--num-steps", 4, "--reward", "own_reward:red")
    learning = ("--rounds", 1, "--samples", 12, "--first-steps", 2, "--threshold", 0.1, "--images", 1)
    asked = ("tune", "--prompts", "p.txt", *sampled, *learning, "--height", 24, "--out", "run")
    assert run([str(token) for token in asked]) == 0
    assert open_artifact(workplace / "run").sampler.given == {"height": 24}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("eta", "name=value"),
        ("=3", "name=value"),
        ("latents=1", "what is learned"),
        ("guidance_scale=3", "--guidance-scale"),
        ("height=24", "twice"),
        ("guidance_rescal=1", "did you mean 'guidance_rescale'"),
        ("guidance_rescale=NaN", "give a number"),
        ("eta=2026-01-01", "give a number"),
        ("eta=much", "give a number"),
    ],
)
def test_what_the_call_does_not_take_is_refused_before_a_folder_is_made(
    given: str,
    said: str,
    workplace: Path,
    tiny_pipeline_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ("find", "a dog", "--model", tiny_pipeline_folder, "--height", "16", "--call", given)
    assert run([str(token) for token in (*asked, "--reward", "own_reward:red", "--out", "run")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (workplace / "run").exists()


def test_what_no_file_holds_is_named(tiny_pipeline: Any, tmp_path: Path) -> None:
    call = {"guidance_rescale": 0.5, "timesteps": None, "cross_attention_kwargs": {"scale": torch.ones(1)}}
    made = find(tiny_pipeline, "a dog", lambda images, prompts: images.mean((1, 2, 3)), queries=6, call=call)
    metadata = made.result.metadata
    assert json.loads(metadata["call"]) == {"guidance_rescale": 0.5, "timesteps": None}
    assert metadata["call_left_out"] == "cross_attention_kwargs"
    made.result.save(tmp_path / "noise.safetensors")
    with pytest.raises(ArtifactError, match="cross_attention_kwargs"):
        open_artifact(tmp_path / "noise.safetensors")


def test_arguments_are_written_as_they_are_read() -> None:
    arguments = {
        "a": 3,
        "b": 0.5,
        "c": "1",
        "d": True,
        "e": None,
        "f": [1, "x"],
        "g": "ö: {",
        "h": {"i": 1},
        "j": 1e-5,
    }
    assert Sampling(call=written(arguments)).arguments() == arguments
    with pytest.raises(ConfigError, match="list"):
        Sampling(call="a=1")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="call"):
        Sampling(call=(3,))  # type: ignore[arg-type]
