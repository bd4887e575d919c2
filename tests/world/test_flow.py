"""The world's sibling with flow matching, as it ships: loaded by its alias, sampled by Euler's method."""

from typing import Any

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import seeded_noise
from diffalign.diffusion.pipeline import takes_ddim
from diffalign.world import FLOW_FOLDER, WORLD_FOLDER
from diffalign.world.judge import judge

PROMPT = "a dog on the grass"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """The model `world-flow`."""
    return load_pipeline("world-flow", device="cpu")


def test_it_is_stable_diffusion_with_parts_of_the_world(pipeline: Any) -> None:
    assert type(pipeline) is StableDiffusionPipeline
    assert type(pipeline.scheduler) is DPMSolverMultistepScheduler
    assert pipeline.config["_name_or_path"] == "world-flow"
    assert not takes_ddim(pipeline)
    world: Any = load_pipeline("world", device="cpu")
    assert pipeline.vae.config.scaling_factor == world.vae.config.scaling_factor
    for part in ("vae", "text_encoder"):
        ours, its = getattr(pipeline, part).state_dict(), getattr(world, part).state_dict()
        assert all(torch.equal(ours[name], its[name]) for name in its)
    assert not torch.equal(pipeline.unet.conv_in.weight, world.unet.conv_in.weight)


def test_it_ships_its_own_parts_alone() -> None:
    """The others lie in the world's folder once."""
    assert {file.name for file in FLOW_FOLDER.iterdir() if file.is_dir()} == {"unet", "scheduler"}
    assert sum(file.stat().st_size for file in FLOW_FOLDER.rglob("*") if file.is_file()) < 12e6
    assert (WORLD_FOLDER / "vae").is_dir()


def test_the_noise_alone_decides_the_picture(pipeline: Any) -> None:
    sampler = Sampler(pipeline, num_steps=4, batch_size=4)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(3))
    pictures = sampler(noise, PROMPT)
    torch.manual_seed(1)  # what else is drawn must not matter
    assert torch.equal(sampler(noise, PROMPT), pictures)
    torch.testing.assert_close(sampler(noise[1:2], PROMPT), pictures[1:2], atol=1e-4, rtol=0)
    assert (pictures[0] - pictures[1]).abs().max() > 0.1


@pytest.mark.parametrize("steps", [1, 5, 20])
@torch.no_grad()
def test_the_pipeline_is_eulers_method(pipeline: Any, steps: int) -> None:
    noise = seeded_noise((8, 8, 8), 0, "test", range(2))
    call = {"num_inference_steps": steps, "guidance_scale": 3.0, "output_type": "latent"}
    drawn = pipeline([PROMPT] * 2, latents=noise, **call).images
    conditions = torch.cat(pipeline.encode_prompt([PROMPT] * 2, "cpu", 1, True)[::-1])
    x_t, times = noise, torch.linspace(0.999, 0, steps + 1, dtype=torch.float64)
    for t, next_t in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        v = pipeline.unet(torch.cat([x_t, x_t]), int(1000 * t + 1e-6), conditions).sample
        unconditional, conditional = v.chunk(2)
        x_t = x_t + (next_t - t) * (unconditional + 3.0 * (conditional - unconditional))
    torch.testing.assert_close(drawn, x_t, atol=5e-4, rtol=0)  # networks and guidance amplify rounding


def test_it_draws_what_a_common_prompt_says(pipeline: Any) -> None:
    sampler = Sampler(pipeline, num_steps=20, batch_size=8)
    pictures = sampler(seeded_noise(sampler.latent_shape, 0, "test", range(8)), PROMPT)
    assert judge(pictures, [PROMPT] * 8)[0].sum() >= 5
