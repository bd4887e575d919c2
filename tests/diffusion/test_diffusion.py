"""Pipelines as black boxes: shapes, determinism, portability, refused input."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline

from diffalign.diffusion import (
    Pipeline,
    PipelineError,
    Sampler,
    list_models,
    load_pipeline,
    seeded_noise,
)
from diffalign.diffusion.finite import check_finite, remedy
from diffalign.diffusion.probe import latents_of


def test_the_latent_shape_is_the_pipelines_own(tiny_pipeline: StableDiffusionPipeline) -> None:
    shape = latents_of(tiny_pipeline).shape
    config = tiny_pipeline.unet.config
    assert shape == (config.in_channels, config.sample_size, config.sample_size)
    side = 2 * config.sample_size * tiny_pipeline.vae_scale_factor
    # the pipeline takes a height only beside a width
    taller = latents_of(tiny_pipeline, height=side, width=side // 2).shape
    assert taller == (config.in_channels, 2 * config.sample_size, config.sample_size)
    assert "prepare_latents" not in vars(tiny_pipeline)  # the spy is gone


def test_pictures_do_not_depend_on_the_batch(tiny_pipeline: StableDiffusionPipeline) -> None:
    noise = seeded_noise(latents_of(tiny_pipeline).shape, 0, "test", range(5))
    pictures = [
        Sampler(tiny_pipeline, num_steps=3, guidance_scale=2.0, batch_size=size)(noise, "a dog")
        for size in (1, 2, 5)
    ]
    torch.testing.assert_close(pictures[0], pictures[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(pictures[0], pictures[2], atol=1e-4, rtol=0)
    assert pictures[0].shape[:2] == (5, 3) and pictures[0].min() >= 0 and pictures[0].max() <= 1


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_plain_diffusers_makes_the_same_bits(
    tiny_pipeline: StableDiffusionPipeline, guidance_scale: float
) -> None:
    noise = seeded_noise(latents_of(tiny_pipeline).shape, 0, "test", range(3))
    ours = Sampler(tiny_pipeline, num_steps=3, guidance_scale=guidance_scale)(noise, "a dog")
    plain = tiny_pipeline(
        "a dog",
        latents=noise,
        num_images_per_prompt=3,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        output_type="pt",
    ).images
    assert torch.equal(ours, plain)


def test_one_prompt_a_sample(tiny_pipeline: StableDiffusionPipeline) -> None:
    sampler = Sampler(tiny_pipeline, num_steps=3, batch_size=2)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(3))
    mixed = sampler(noise, ["a dog", "a cat", "a dog"])
    torch.testing.assert_close(mixed[[0, 2]], sampler(noise[[0, 2]], "a dog"), atol=1e-4, rtol=0)
    torch.testing.assert_close(mixed[[1]], sampler(noise[[1]], "a cat"), atol=1e-4, rtol=0)
    with pytest.raises(PipelineError, match="3 samples need one prompt or 3, not 2"):
        sampler(noise, ["a dog", "a cat"])


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize(("part", "what"), [("decoder", "pictures"), ("unet", "latents")])
def test_pictures_that_are_no_numbers_are_refused(
    part: str, what: str, value: float, tiny_pipeline_folder: Path
) -> None:
    """As of a decoder that overflows: they would be black or white ones, and scored."""
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    network = pipeline.unet if part == "unet" else pipeline.vae.decoder
    network.conv_out.bias.data[0] = value
    sample = Sampler(pipeline, num_steps=1)
    with pytest.raises(PipelineError, match=f"2 of 2 {what} hold values that are no numbers; take a lower"):
        sample(torch.zeros(2, 4, 8, 8), "a dog")
    network.conv_out.bias.data[0] = 0
    assert sample(torch.zeros(2, 4, 8, 8), "a dog").isfinite().all()
    assert not pipeline.vae.decoder._forward_hooks


def test_one_sample_that_is_no_number_is_counted(tiny_pipeline: StableDiffusionPipeline) -> None:
    noise = torch.zeros(3, 4, 8, 8)
    noise[1, 0, 0, 0] = torch.nan
    with pytest.raises(PipelineError, match="1 of 3 noises hold values that are no numbers"):
        Sampler(tiny_pipeline, num_steps=1)(noise, "a dog")


def test_what_mends_half_precision_is_said() -> None:
    picture = torch.full((1, 3, 2, 2), 1e6).half()
    with pytest.raises(PipelineError, match=r"1 of 1 pictures .* float32 or bfloat16 .* another VAE"):
        check_finite("pictures", picture, remedy(picture.dtype))


def test_noise_that_does_not_fit_is_refused(tiny_pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(PipelineError, match="latents have"):
        Sampler(tiny_pipeline)(torch.zeros(1, 3, 5, 5), "a dog")
    with pytest.raises(PipelineError, match="positive"):
        Sampler(tiny_pipeline, num_steps=0)


def test_loading(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, scheduler="ddim")
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    with pytest.raises(PipelineError, match="unknown scheduler 'dimm'"):
        load_pipeline(tiny_pipeline_folder, scheduler="dimm")


def test_a_pipeline_of_diffusers_has_what_is_used_of_it(tiny_pipeline: StableDiffusionPipeline) -> None:
    assert isinstance(tiny_pipeline, Pipeline)
    assert not isinstance(tiny_pipeline.unet, Pipeline)


def test_unknown_models_are_named(tmp_path: Path) -> None:
    assert {"world", "world-flow"} <= list_models().keys()
    with pytest.raises(PipelineError, match="did you mean 'world'"):
        load_pipeline("wrld")
    with pytest.raises(PipelineError, match=r"no model_index\.json"):
        load_pipeline(tmp_path)


def test_seeded_noise_is_standard_and_reproducible() -> None:
    noise = seeded_noise((4, 8, 8), 7, "test", range(200))
    assert abs(float(noise.mean())) < 0.01 and abs(float(noise.std()) - 1) < 0.01
    assert torch.equal(noise[3:5], seeded_noise((4, 8, 8), 7, "test", [3, 4]))
