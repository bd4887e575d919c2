"""Pipelines of other families than Stable Diffusion, and arguments that act on the encoding."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
)
from safetensors.torch import load_file
from transformers import BatchFeature

from diffalign.diffusion import PipelineError, Sampler, load_pipeline, seeded_noise
from tests.families import allegro


def test_videos_are_made_in_batches(tiny_video_pipeline: Any) -> None:
    sampler = Sampler(tiny_video_pipeline, num_steps=2, batch_size=2, num_frames=3)
    assert sampler.latent_shape == (4, 3, 8, 8)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(3))
    videos = sampler(noise, "a dog")
    assert videos.shape == (3, 3, 3, 16, 16) and videos.min() >= 0 and videos.max() <= 1
    plain = tiny_video_pipeline(
        "a dog", latents=noise[2:], num_frames=3, num_inference_steps=2, output_type="pt"
    ).frames
    torch.testing.assert_close(videos[2:], plain, atol=1e-4, rtol=0)


@pytest.mark.parametrize("prompt", ["a dog", ["a dog", "a dog"]])
def test_a_negative_prompt_is_the_pipelines_own(tiny_pipeline: Any, prompt: str | list[str]) -> None:
    sampler = Sampler(tiny_pipeline, num_steps=2, negative_prompt="a cat")
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(2))
    plain = tiny_pipeline(
        "a dog",
        negative_prompt="a cat",
        latents=noise,
        num_images_per_prompt=2,
        num_inference_steps=2,
        output_type="pt",
    ).images
    torch.testing.assert_close(sampler(noise, prompt), plain, atol=1e-5, rtol=0)
    without = Sampler(tiny_pipeline, num_steps=2)(noise, prompt)
    assert (without - plain).abs().max() > 1e-3


def test_samples_a_prompt_are_no_argument_of_the_call(tiny_pipeline: Any) -> None:
    with pytest.raises(PipelineError, match="num_images_per_prompt"):
        Sampler(tiny_pipeline, num_images_per_prompt=2)


def test_a_decoder_that_wants_tiling_says_so(tiny_pipeline: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("Decoding without tiling has not been implemented yet.")

    sampler = Sampler(tiny_pipeline, num_steps=1)
    monkeypatch.setattr(tiny_pipeline.vae, "decode", decode)
    with pytest.raises(PipelineError, match=r"without tiling.*enable_tiling"):
        sampler(seeded_noise(sampler.latent_shape, 0, "test", range(1)), "a dog")


def test_ddim_needs_a_schedule_of_betas(
    tiny_pipeline: Any, tiny_pipeline_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = load_pipeline(tiny_pipeline_folder, device="cpu")
    flow.scheduler = FlowMatchEulerDiscreteScheduler()
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *names, **more: flow)
    with pytest.raises(PipelineError, match="FlowMatchEulerDiscreteScheduler"):
        load_pipeline(tiny_pipeline_folder, device="cpu", scheduler="ddim")


def test_a_pipeline_that_swallows_latents_is_refused(tiny_pipeline: Any) -> None:
    image = torch.rand(1, 3, 16, 16)
    img2img = StableDiffusionImg2ImgPipeline(**tiny_pipeline.components, requires_safety_checker=False)
    with pytest.raises(PipelineError, match="takes no latents="):
        Sampler(img2img, num_steps=2, image=image)


def test_the_prompt_need_not_be_the_first_argument(tiny_pipeline: Any) -> None:
    class ImageFirst(type(tiny_pipeline)):  # type: ignore[misc]
        def __call__(
            self,
            image: Any = None,
            prompt: Any = None,
            num_inference_steps: int = 2,
            latents: Any = None,
            **call: Any,
        ) -> Any:
            assert image is None
            return super().__call__(prompt, latents=latents, num_inference_steps=num_inference_steps, **call)

    pipeline = ImageFirst(**tiny_pipeline.components, requires_safety_checker=False)
    assert Sampler(pipeline, num_steps=2).latent_shape == (4, 8, 8)


@pytest.mark.parametrize("wrong", [{"height": "tall", "width": 16}, {"negative_prompt": 3}])
def test_a_call_that_fails_says_what_the_pipeline_said(tiny_pipeline: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(PipelineError, match=f"cannot be called with a prompt and {', '.join(wrong)}"):
        Sampler(tiny_pipeline, num_steps=2, **wrong)


def test_a_folder_of_half_precision_alone_is_loaded(tiny_pipeline: Any, tmp_path: Path) -> None:
    tiny_pipeline.save_pretrained(tmp_path, variant="fp16")
    loaded = load_pipeline(tmp_path, device="cpu")
    for one, other in zip(loaded.unet.parameters(), tiny_pipeline.unet.parameters(), strict=True):
        assert one.equal(other)


def test_pickled_weights_are_not_opened_and_the_way_out_is_named(tiny_pipeline: Any, tmp_path: Path) -> None:
    tiny_pipeline.save_pretrained(tmp_path, safe_serialization=False)
    text = tmp_path / "text_encoder"
    torch.save(load_file(text / "model.safetensors"), text / "pytorch_model.bin")
    (text / "model.safetensors").unlink()
    with pytest.raises(PipelineError, match=r"pickled weights.*save_pretrained"):
        load_pipeline(tmp_path, device="cpu")
    again = DiffusionPipeline.from_pretrained(tmp_path, use_safetensors=False)
    again.save_pretrained(tmp_path / "safe")
    load_pipeline(tmp_path / "safe", device="cpu")


@pytest.mark.parametrize("flags", [[True, True], [False, True]])
def test_black_pictures_of_a_safety_checker_do_not_go_unseen(
    tiny_pipeline_folder: Path, flags: list[bool]
) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    pipeline.safety_checker = lambda images, clip_input: (images, flags)
    pipeline.feature_extractor = lambda images, return_tensors: BatchFeature({"pixel_values": torch.ones(1)})
    sampler = Sampler(pipeline, num_steps=1)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(2))
    caught: Any = pytest.raises(PipelineError, match="2 of 2 pictures black")
    if not all(flags):
        caught = pytest.warns(UserWarning, match="1 of 2 pictures black")
    with caught:
        sampler(noise, "a dog")


def test_a_decoder_that_works_in_tiles_alone_is_told_so(tmp_path: Path) -> None:
    allegro().save_pretrained(tmp_path)
    pipeline: Any = load_pipeline(tmp_path, device="cpu")
    sampler = Sampler(pipeline, num_steps=1, height=16, width=16, num_frames=8)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(1))
    assert sampler(noise, "a dog").shape == (1, 8, 3, 16, 16)
