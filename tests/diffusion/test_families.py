"""Pipelines of other families than Stable Diffusion, and arguments that act on the encoding."""

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from diffalign.diffusion import PipelineError, Sampler, load_pipeline, seeded_noise
from diffalign.diffusion.pipeline import is_deterministic


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


def test_ddim_needs_a_schedule_of_betas(
    tiny_pipeline: Any, tiny_pipeline_folder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = load_pipeline(tiny_pipeline_folder, device="cpu")
    flow.scheduler = FlowMatchEulerDiscreteScheduler()
    monkeypatch.setattr("diffusers.DiffusionPipeline.from_pretrained", lambda *names, **more: flow)
    with pytest.raises(PipelineError, match="FlowMatchEulerDiscreteScheduler"):
        load_pipeline(tiny_pipeline_folder, device="cpu", scheduler="ddim")


def test_a_solver_of_the_stochastic_equation_is_not_deterministic(tiny_pipeline_folder: Any) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    pipeline.scheduler = DPMSolverMultistepScheduler()
    assert is_deterministic(pipeline)
    pipeline.scheduler = DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++")
    assert not is_deterministic(pipeline)
