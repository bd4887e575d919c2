"""LoRA adapters and textual inversions that a model is loaded with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffalign import Sampler, load_pipeline, tune
from diffalign.diffusion import PipelineError, fingerprint, seeded_noise
from diffalign.diffusion.adapters import split_scale
from diffalign.diffusion.additions import Additions
from diffalign.diffusion.fingerprint import PARTS, differing
from diffalign.diffusion.pipeline import with_ddim
from diffalign.policies.denoiser import DenoiserPolicy
from tests.diffusion.adapters import save_inversion, save_lora


@pytest.fixture(scope="module")
def loras(tiny_pipeline_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An adapter of denoiser and text encoder, and one of the denoiser."""
    folder = tmp_path_factory.mktemp("loras")
    one = save_lora(tiny_pipeline_folder, folder / "one")
    return one, save_lora(tiny_pipeline_folder, folder / "two", seed=1, parts=("unet",))


@pytest.fixture
def load(tiny_pipeline_folder: Path) -> Callable[..., Any]:
    return lambda **more: load_pipeline(tiny_pipeline_folder, device="cpu", **more)


def pictures(pipeline: Any, prompt: str = "a dog") -> torch.Tensor:
    sampler = Sampler(pipeline, num_steps=3)
    return sampler(seeded_noise(sampler.latent_shape, 0, "test", range(2)), prompt)


def test_pictures_are_those_of_plain_adapters(load: Callable[..., Any], loras: tuple[Path, Path]) -> None:
    plain = load()
    for name, folder in zip(("one", "two"), loras, strict=True):
        plain.load_lora_weights(folder, adapter_name=name)
    plain.set_adapters(["one", "two"], [0.7, -0.5])
    fused = load(lora=[f"{loras[0]}@0.7", f"{loras[1] / 'pytorch_lora_weights.safetensors'}@-0.5"])
    torch.testing.assert_close(pictures(fused), pictures(plain), atol=1e-5, rtol=0)
    assert (pictures(fused) - pictures(load())).abs().max() > 1e-2
    assert not any("lora" in name for name in {**fused.unet.state_dict(), **fused.text_encoder.state_dict()})


def test_blocks_may_differ_in_their_number_of_layers(tmp_path: Path) -> None:
    """As those of the embedded world's UNet do."""
    pipeline = load_pipeline("world", device="cpu")
    policy = DenoiserPolicy(Sampler(pipeline, num_steps=1), rank=2)
    with torch.no_grad():
        for parameter in policy.learned():
            parameter.fill_(0.05)
    policy.save(tmp_path)
    tuned = pictures(pipeline)
    policy.unload()
    fused = load_pipeline("world", device="cpu", lora=[tmp_path])
    torch.testing.assert_close(pictures(fused), tuned, atol=1e-4, rtol=0)
    assert (tuned - pictures(pipeline)).abs().max() > 1e-2


def test_the_fingerprint_covers_them(load: Callable[..., Any], loras: tuple[Path, Path]) -> None:
    one, two = map(str, loras)
    found = {fingerprint(load(lora=given)) for given in ([], [one], [two], [one, two], [f"{one}@0.5"])}
    assert len(found) == 5
    again = load(lora=[one, two], scheduler="ddim")
    assert fingerprint(again) == fingerprint(load(lora=loras)) == fingerprint(with_ddim(again))
    plain = load()
    for given in loras:
        plain.load_lora_weights(given)
    plain.set_adapters(["default_0", "default_1"])
    assert fingerprint(again) == fingerprint(plain)
    # fused, weights are rounded otherwise
    assert fingerprint(load(lora=loras, dtype=torch.float16)) == fingerprint(again)
    known = fingerprint(again)
    again.unet.conv_in.bias.data += 1
    assert PARTS[0] in differing(known, fingerprint(again))


def test_one_can_be_learned_on_top(load: Callable[..., Any], loras: tuple[Path, Path]) -> None:
    pipeline = load(lora=loras)
    known, before = fingerprint(pipeline), pictures(pipeline)
    run = tune(
        pipeline,
        ["a dog", "a cat"],
        lambda images, prompts: images[:, 0].mean((1, 2)),
        num_steps=4,
        learning_rate=0.1,
        rounds=1,
        samples=12,
        first_steps=2,
        threshold=0.0,
    )
    run.run()
    metadata = run.learner.metadata
    assert metadata["model_fingerprint"] == known and Additions.read(metadata).lora == tuple(map(str, loras))
    assert (pictures(pipeline) - before).abs().max() > 1e-3
    run.learner.policy.unload()
    assert torch.equal(pictures(pipeline), before) and fingerprint(pipeline) == known


def test_a_token_means_what_its_file_says(load: Callable[..., Any], tmp_path: Path) -> None:
    one = save_inversion(tmp_path / "one.safetensors")
    style = save_inversion(tmp_path / "style.safetensors", token="emb_params", vectors=3)
    pipeline = load(textual_inversion=[one, style])
    assert (pictures(pipeline, "a <toy>") - pictures(load(), "a <toy>")).abs().max() > 1e-3
    assert (pictures(pipeline, "a style") - pictures(load(), "a style")).abs().max() > 1e-3
    torch.testing.assert_close(pictures(pipeline), pictures(load()), atol=1e-6, rtol=0)
    renamed = load(textual_inversion=[f"{one}@<mine>"])
    assert torch.equal(pictures(renamed, "a <mine>"), pictures(load(textual_inversion=one), "a <toy>"))
    found = {fingerprint(it) for it in (load(), pipeline, renamed, load(textual_inversion=[one]))}
    assert len(found) == 4


def test_what_is_asked_for_is_known_at_the_pipeline_and_read_again(
    load: Callable[..., Any], loras: tuple[Path, Path], tmp_path: Path
) -> None:
    inversion = str(save_inversion(tmp_path / "ö.safetensors"))
    given = {"lora": (f"{loras[0]}@0.5", str(loras[1])), "textual_inversion": (inversion,)}
    found = Additions.of(with_ddim(load(**given)))
    assert found == Additions(None, **given) == Additions.read(found.record())
    assert Additions.of(load()) == Additions() and Additions().record() == {}


def test_a_scale_stands_behind_an_at(tmp_path: Path) -> None:
    assert split_scale("owner/model@0.5") == ("owner/model", 0.5)
    assert split_scale("a@b/c.safetensors@-1e-1") == ("a@b/c.safetensors", -0.1)
    for plain in ("owner/model", "a@b/c.safetensors", "@1"):
        assert split_scale(plain) == (plain, 1.0)
    (tmp_path / "lora@2").mkdir()
    assert split_scale(str(tmp_path / "lora@2")) == (str(tmp_path / "lora@2"), 1.0)
    with pytest.raises(PipelineError, match="finite"):
        split_scale("lora@nan")


@pytest.mark.parametrize("what", ["lora", "textual_inversion"])
def test_one_that_is_not_there_is_named(what: str, load: Callable[..., Any]) -> None:
    for name in ("nowhere.safetensors", "./no/where", "/no/where", "no/where.safetensors"):
        with pytest.raises(PipelineError, match=f"there is no .* {name}"):
            load(**{what: [name]})
    for name in ("owner/model", "owner/model/file.safetensors"):
        with pytest.raises(PipelineError, match=name):
            load(**{what: [name]})
    for name in ("file.bin", "owner/model/file.pt"):
        with pytest.raises(PipelineError, match=f"{name} is pickled, which can run code"):
            load(**{what: [name]})


LORA = {"unet.down.to_q.lora_A.weight": torch.ones(4, 8), "unet.down.to_q.lora_B.weight": torch.ones(8, 4)}
ELSEWHERE = {name.replace("unet", "transformer"): tensor for name, tensor in LORA.items()}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": torch.ones(3)}, "Invalid LoRA checkpoint"),
        (LORA, "not found in the base model"),
        (ELSEWHERE, "has no weights for this StableDiffusionPipeline"),
        (None, "header"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(
    tensors: dict[str, torch.Tensor] | None, said: str, load: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "lora.safetensors"
    path.write_text("no safetensors")
    if tensors:
        save_file(tensors, path)
    with pytest.raises(PipelineError, match=rf"{said}.*of the same architecture"):
        load(lora=[path])


def test_a_token_that_does_not_fit_is_refused(load: Callable[..., Any], tmp_path: Path) -> None:
    one = save_inversion(tmp_path / "one.safetensors")
    with pytest.raises(PipelineError, match="already in tokenizer vocabulary"):
        load(textual_inversion=[one, one])
    with pytest.raises(PipelineError, match="incorrect shape"):
        load(textual_inversion=[save_inversion(one, width=17)])
    save_file({"a": torch.ones(1, 16), "b": torch.ones(1, 16)}, one)
    with pytest.raises(PipelineError, match="it holds 2 tensors"):
        load(textual_inversion=[one])


def test_a_pipeline_that_takes_none_is_named(
    tiny_pipeline: Any, tiny_video_pipeline: Any, loras: tuple[Path, Path], tmp_path: Path
) -> None:
    tiny_video_pipeline.save_pretrained(tmp_path / "video")
    with pytest.raises(PipelineError, match="on this TextToVideoSDPipeline"):
        load_pipeline(tmp_path / "video", device="cpu", lora=loras)

    from diffusers import DDIMPipeline

    DDIMPipeline(tiny_pipeline.unet, tiny_pipeline.scheduler).save_pretrained(tmp_path / "plain")
    with pytest.raises(PipelineError, match="diffusers puts no LoRA adapter on a DDIMPipeline"):
        load_pipeline(tmp_path / "plain", device="cpu", lora=loras)
    with pytest.raises(PipelineError, match="diffusers adds no textual inversion to a DDIMPipeline"):
        load_pipeline(tmp_path / "plain", device="cpu", textual_inversion=["owner/model"])
