"""The model of a run: told from others, and opened again as it was learned with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import EulerDiscreteScheduler
from safetensors.torch import load_file, save_file

from diffalign import NoiseDistribution, load_artifact, load_pipeline, open_artifact
from diffalign.diffusion import fingerprint
from diffalign.files import ArtifactError
from diffalign.policies.noise import check_fingerprint
from tests.diffusion.adapters import save_inversion, save_lora
from tests.diffusion.single_file import save_single_file

#: Of runs that take a moment.
FEW: dict[str, tuple[object, ...]] = {
    "find": ("--queries", 6),
    "anchors": ("--components", 8, "--rounds", 1, "--prompts-per-round", 2, "--samples-per-prompt", 2),
    "tune": ("--rounds", 1, "--samples", 12, "--first-steps", 2, "--threshold", 0.1),
}


@pytest.fixture
def model(workplace: Path, tiny_pipeline_folder: Path) -> Path:
    """A copy of the tiny pipeline that samples with Euler's method."""
    folder = workplace / "model"
    shutil.copytree(tiny_pipeline_folder, folder)
    pipeline: Any = load_pipeline(folder, device="cpu")
    EulerDiscreteScheduler.from_config(pipeline.scheduler.config).save_pretrained(folder / "scheduler")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "EulerDiscreteScheduler"))
    return folder


@pytest.mark.parametrize("scheduler", ["keep", "ddim"])
def test_the_scheduler_of_learning_is_that_of_pictures(
    scheduler: str, model: Path, diffalign, small: list[object]
) -> None:
    learn = ("find", "a dog", "--model", model, *small[2:], "--scheduler", scheduler, "--out", "run")
    assert diffalign(*learn).code == 0
    recorded = NoiseDistribution.load("run").metadata["model_fingerprint"]
    assert recorded == fingerprint(load_pipeline(model, device="cpu", scheduler=scheduler))
    assert diffalign("generate", "run", "-n", 1).code == 0
    distilled = ("distil", "run", "--model", model, "--num-steps", 2, "--steps", 2)
    assert diffalign(*distilled, "--scheduler", scheduler).code == 0
    other = "keep" if scheduler == "ddim" else "ddim"
    refused = diffalign(*distilled, "--scheduler", other, "--out", "other")
    assert refused.code == 2 and "it has another scheduler" in refused.err
    started = ("find", "a cat", *learn[2:-4], "--start", "runs/distilled", "--scheduler", other)
    assert diffalign(*started, "--out", "started").code == 0


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_another_text_encoder_or_vae_is_another_model(
    part: str, model: Path, diffalign, small: list[object]
) -> None:
    assert diffalign("find", "a dog", "--model", model, *small[2:], "--out", "run").code == 0
    open_artifact("run")
    (file,) = (model / part).glob("*.safetensors")
    save_file({name: 1.1 * tensor for name, tensor in load_file(file).items()}, file, {"format": "pt"})
    refused = diffalign("generate", "run", "-n", 1)
    assert refused.code == 2 and "it has another text encoder, VAE, tiling or adapter" in refused.err


def test_other_settings_of_the_scheduler_are_another_model(model: Path, diffalign, small) -> None:
    assert diffalign("find", "a dog", "--model", model, *small[2:], "--out", "run").code == 0
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(file.read_text().replace('"leading"', '"trailing"').replace('"linspace"', '"trailing"'))
    refused = diffalign("generate", "run", "-n", 1)
    assert refused.code == 2 and "it has another scheduler" in refused.err


@pytest.mark.parametrize("method", ["find", "anchors", "tune"])
def test_a_single_file_is_opened_again_with_its_configuration(
    method: str, diffalign, workplace: Path, tiny_pipeline: Any, tiny_pipeline_folder: Path
) -> None:
    save_single_file(tiny_pipeline, workplace / "model.safetensors")
    options = ("--reward", "own_reward:red", "--num-steps", 4, "--images", 2, "--out", "run")
    model = ("--model", "model.safetensors", "--model-config", tiny_pipeline_folder)
    prompts = ("a dog",) if method == "find" else ("a dog", "a cat")
    done = diffalign(method, *prompts, *FEW[method], *options, *model)
    assert done.code == 0, done.err
    opened = open_artifact("run")
    assert opened.metadata["model_config"] == str(tiny_pipeline_folder)
    shown = () if method == "find" else ("--prompt", "a dog")
    assert diffalign("generate", "run", "-n", 1, *shown).code == 0
    Path("model.safetensors").rename("moved.safetensors")
    assert diffalign("generate", "run", "-n", 1, *shown, "--model", "moved.safetensors").code == 0
    assert diffalign("generate", "run", "-n", 1, *shown, "--model", tiny_pipeline_folder).code == 0
    refused = diffalign("generate", "run", "-n", 1, *shown)
    assert refused.code == 2 and "there is no file model.safetensors" in refused.err
    if method == "anchors":
        Path("moved.safetensors").rename("model.safetensors")
        assert load_artifact("run")("a dog").mean.isfinite().all()


@pytest.mark.parametrize("method", ["find", "anchors", "tune"])
def test_adapters_and_tokens_are_recorded_and_added_again(
    method: str, diffalign, workplace: Path, tiny_pipeline_folder: Path
) -> None:
    save_lora(tiny_pipeline_folder, workplace / "one")
    save_lora(tiny_pipeline_folder, workplace / "two", seed=1)
    save_inversion(workplace / "toy.safetensors")
    model = ("--model", tiny_pipeline_folder, "--textual-inversion", "toy.safetensors")
    model += ("--lora", "one@0.5", "--lora", "two")
    options = ("--reward", "own_reward:red", "--num-steps", 4, "--images", 2)
    prompts = ("a <toy>",) if method == "find" else ("a <toy>", "a cat")
    done = diffalign(method, *prompts, *FEW[method], *options, *model, "--out", "run")
    assert done.code == 0, done.err
    opened = open_artifact("run")
    assert json.loads(opened.metadata["lora"]) == ["one@0.5", "two"]
    assert json.loads(opened.metadata["textual_inversion"]) == ["toy.safetensors"]
    assert yaml.safe_load(Path("run/config.yaml").read_text())["lora"] == ["one@0.5", "two"]
    command = json.loads(Path("run/summary.json").read_text())["run"]["command"]
    assert "--lora one@0.5 --lora two --textual-inversion toy.safetensors" in command
    if method == "find":
        plain = load_pipeline(
            tiny_pipeline_folder, device="cpu", lora=["one@0.5", "two"], textual_inversion=["toy.safetensors"]
        )
        noise = opened.latents("a <toy>", 2, 0)
        call = {"num_images_per_prompt": 2, "num_inference_steps": 4, "output_type": "pt"}
        assert torch.equal(opened.sampler(noise, "a <toy>"), plain("a <toy>", latents=noise, **call).images)
    if method == "anchors":
        assert load_artifact("run")("a <toy>").mean.isfinite().all()
    shown = () if method == "find" else ("--prompt", "a <toy>")
    assert diffalign("generate", "run", "-n", 1, *shown).code == 0
    Path("run/summary.json").unlink()
    assert diffalign(method, "--resume", "run").code == 0
    Path("two").rename("moved")
    refused = diffalign("generate", "run", "-n", 1, *shown)
    assert refused.code == 2 and "there is no adapter two" in refused.err
    moved = ("--lora", "one@0.5", "--lora")
    assert diffalign("generate", "run", "-n", 1, *shown, *moved, "moved").code == 0
    refused = diffalign("generate", "run", "-n", 1, *shown, *moved, "moved@0.9")
    assert refused.code == 2 and "it has another" in refused.err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--lora", "nowhere.safetensors"), "there is no adapter nowhere.safetensors"),
        (("--lora", "one@inf"), "finite number"),
        (("--textual-inversion", "nowhere.safetensors"), "there is no textual inversion nowhere"),
        (("--model-config", "world"), "of a single file alone"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_folder_is_made(
    given: tuple[str, str], said: str, diffalign, small: list[object], workplace: Path
) -> None:
    refused = diffalign("find", "a dog", *small, *given, "--out", "run")
    assert refused.code == 2 and said in refused.err and "Traceback" not in refused.err
    assert not (workplace / "run").exists()


@pytest.mark.parametrize("method", ["find", "tune"])
def test_tiles_of_the_decoder_are_recorded_and_used_again(
    method: str, model: Path, diffalign, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import AutoencoderKL

    tiled, decode = list[int](), AutoencoderKL.tiled_decode

    def counting(vae: Any, latents: torch.Tensor, **kwargs: Any) -> Any:
        tiled.append(len(latents))
        return decode(vae, latents, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "tiled_decode", counting)
    options = ("--reward", "own_reward:red", "--num-steps", 4, "--images", 2, "--height", 32, "--width", 32)
    prompts = ("a dog",) if method == "find" else ("a dog", "a cat")
    learn = (method, *prompts, *FEW[method], *options, "--model", model)
    done = diffalign(*learn, "--out", "run", "--tiling", "--offload")
    assert done.code == 0, done.err
    assert tiled and set(tiled) == {1}  # a sample at a time
    assert yaml.safe_load(Path("run/config.yaml").read_text())["tiling"] is True
    tiled.clear()
    shown = () if method == "find" else ("--prompt", "a dog")
    assert diffalign("generate", "run", "-n", 2, "--offload", *shown).code == 0
    assert tiled == [1, 1]
    opened = open_artifact("run")
    assert opened.metadata["tiling"] == "true" and opened.sampler.pipeline.vae.use_tiling
    whole = load_pipeline(model, device="cpu")
    with pytest.raises(ArtifactError, match="tiling"):
        check_fingerprint(opened.metadata, fingerprint(whole))


def test_a_decoder_without_tiles_says_so(model: Path, diffalign, small, monkeypatch) -> None:
    from diffusers import AutoencoderKL

    def enable_tiling(vae: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(AutoencoderKL, "enable_tiling", enable_tiling)
    refused = diffalign("find", "a dog", "--model", model, *small[2:], "--tiling")
    assert refused.code == 2 and "its AutoencoderKL does not know; leave out --tiling" in refused.err
