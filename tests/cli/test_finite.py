"""What stops being a number stops the run, with one line that says what to do, and leaves finite files."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffalign import NoiseDistribution, files, load_pipeline
from diffalign.diffusion import fingerprint

Break = Callable[[Any], None]


def overflowing_decoder(pipeline: Any) -> None:
    """Its pictures would be clamped to white ones, and scored."""
    pipeline.vae.decoder.conv_out.bias.data[:] = torch.inf


def overflowing_denoiser(pipeline: Any) -> None:
    pipeline.unet.conv_out.bias.data[0] = torch.inf


def broken_text_encoder(pipeline: Any) -> None:
    [*pipeline.text_encoder.parameters()][-1].data[0] = torch.nan


@pytest.fixture
def broken(tiny_pipeline_folder: Path, tmp_path: Path) -> Callable[[Break], Path]:
    """Saves a model that makes what are no numbers."""

    def save(change: Break) -> Path:
        pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
        change(pipeline)
        pipeline.save_pretrained(tmp_path / "broken")
        return tmp_path / "broken"

    return save


METHODS: dict[str, list[object]] = {
    "find": ["--queries", 12, "--batch", 4, "--images", 2],
    "anchors": ["--rounds", 3, "--prompts-per-round", 1, "--samples-per-prompt", 4, "--images", 2],
    "noise-ppo": ["--rounds", 3, "--prompts-per-round", 1, "--samples-per-prompt", 4, "--images", 2],
    "tune": ["--rounds", 3, "--samples", 12, "--first-steps", 2, "--images", 2, "--check-every", 0],
    "search": ["--algorithm", "zero-order", "--queries", 12, "--keep", 2, "--neighbours", 2],
}


def command(method: str, model: Path, *more: object) -> list[object]:
    options = ["--model", model, "--num-steps", 2, "--reward", "own_reward:red", "--device", "cpu"]
    return [method, "a dog", *options, *METHODS[method], "--out", "run", *more]


def said(done: Any) -> list[str]:
    """The error and what follows, without what loading prints."""
    lines: list[str] = done.err[done.err.index("error: ") :].strip().splitlines()
    return lines


def check_folder(rounds: int) -> None:
    """The state in it is the finite one of as many rounds, and nothing that is learned from it is there."""
    state, strings = files.load_tensors(Path("run") / files.STATE)
    assert all(value.isfinite().all() for value in state.values())
    assert strings["rounds"] == str(rounds)
    json.loads(strings.get("statistics", "{}"), parse_constant=pytest.fail)
    metrics = Path("run") / files.METRICS
    lines = metrics.read_text().splitlines() if metrics.exists() else []
    assert [json.loads(line, parse_constant=pytest.fail)["round"] for line in lines] == [
        *range(1, rounds + 1)
    ]
    assert not [name for name in (*files.LEARNED, files.SUMMARY) if (Path("run") / name).exists()]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", [overflowing_decoder, overflowing_denoiser, broken_text_encoder])
def test_a_model_that_overflows_stops_the_run(
    method: str, change: Break, diffalign: Any, broken: Callable[[Break], Path]
) -> None:
    """Before there is a folder, as it is tried out first."""
    done = diffalign(*command(method, broken(change)))
    what = "pictures" if change is overflowing_decoder else "latents"
    error, *note = said(done)
    assert done.code == 2 and not note and not Path("run").exists()
    assert f"{what} hold values that are no numbers; take a lower learning rate or guidance scale" in error


def test_a_model_that_overflows_later_stops_the_run(
    diffalign: Any, tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffalign.run.loading.try_out", lambda sampler, *prompt: None)
    monkeypatch.setattr("diffalign.diffusion.sampler.Sampler._make", _overflow)
    done = diffalign(*command("find", tiny_pipeline_folder))
    error, *note = said(done)
    assert done.code == 2 and "pictures hold values that are no numbers" in error
    assert note == ["as it is, diffalign find --resume run would stop here again"]
    check_folder(rounds=0)


def _overflow(self: Any, latents: torch.Tensor, prompts: Any) -> Any:
    return SimpleNamespace(images=torch.full((len(latents), 3, 16, 16), torch.inf))


@pytest.mark.parametrize(("method", "more"), [("find", ["--preset", "paper"]), ("tune", [])])
def test_too_high_a_learning_rate_stops_the_run(
    method: str, more: list[object], diffalign: Any, tiny_pipeline_folder: Path
) -> None:
    done = diffalign(*command(method, tiny_pipeline_folder, *more, "--learning-rate", 1e16))
    error, *note = said(done)
    assert done.code == 2 and note == [f"as it is, diffalign {method} --resume run would stop here again"]
    assert "hold values that are no numbers" in error and "a lower learning rate" in error
    check_folder(len((Path("run") / files.METRICS).read_text().splitlines()))


def test_a_damaged_adapter_or_state_is_not_used(diffalign: Any, tiny_pipeline_folder: Path) -> None:
    assert diffalign(*command("tune", tiny_pipeline_folder)).code == 0
    adapter = Path("run/lora/pytorch_lora_weights.safetensors")
    tensors = load_file(adapter)
    tensors[min(tensors)][0, 0] = torch.nan
    save_file(tensors, adapter)
    for name in ("generate", "evaluate"):
        done = diffalign(name, "run", "--prompt", "a dog", "--device", "cpu")
        assert done.code == 2 and "weights hold values that are no numbers" in said(done)[0]
    assert not Path("run/pictures").exists() and not [*Path("run").glob("evaluation*")]

    state = Path("run") / files.STATE
    tensors, strings = files.load_tensors(state)
    tensors["policy.0"][0, 0] = torch.inf
    files.save_tensors(state, tensors, strings, files.read_header(state)["format"])
    (Path("run") / files.SUMMARY).unlink()
    done = diffalign("tune", "--resume", "run")
    assert done.code == 2 and len(said(done)) == 1
    assert "holds values that are no numbers (policy.0)" in said(done)[0]


@pytest.mark.parametrize("name", ["generate", "evaluate"])
def test_pictures_of_what_was_learned_are_refused(
    name: str, diffalign: Any, broken: Callable[[Break], Path]
) -> None:
    """Before they are written, or measured."""
    pipeline: Any = load_pipeline(broken(overflowing_decoder), device="cpu")
    recorded = {"model": str(Path("broken").resolve()), "model_fingerprint": fingerprint(pipeline)}
    recorded |= {"num_steps": "2", "guidance_scale": "2.0", "scheduler": "DDIMScheduler", "prompt": "a dog"}
    noise = NoiseDistribution.standard((4, 8, 8))
    replace(noise, metadata={**recorded, "reward": "own_reward:red"}).save("noise.safetensors")
    done = diffalign(name, "noise.safetensors", "--device", "cpu")
    assert done.code == 2 and "pictures hold values that are no numbers" in said(done)[0]
    assert not Path("pictures").exists() and not Path(files.EVALUATION).exists()


@pytest.mark.parametrize("method", ["find", "tune"])
def test_what_mends_a_run_in_half_precision_mends_it(
    method: str, diffalign: Any, broken: Callable[[Break], Path]
) -> None:
    def great(pipeline: Any) -> None:
        pipeline.vae.decoder.conv_out.bias.data[0] = 1e5

    done = diffalign(*command(method, broken(great), "--dtype", "float16"))
    assert done.code == 2 and "load the model in float32 or bfloat16 (--dtype, or in" in said(done)[0]
    done = diffalign(*command(method, Path("broken").resolve(), "--dtype", "float32"))
    assert done.code == 0 and (Path("run") / files.SUMMARY).is_file()
