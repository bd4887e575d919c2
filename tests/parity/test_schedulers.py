"""A decision is diffusers' own step: of DDIM with its noise, and of DDPM where η = 1. Without noise, pictures
are the pipeline's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffalign import Sampler, load_pipeline
from diffalign.diffusion.sampler import seeded_noise
from diffalign.diffusion.transition import Schedule
from diffalign.policies.denoiser import DenoiserPolicy

SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
#: Where a schedule of 1000 steps visits 4, as diffusers' documentation of DDIM has it.
VISITED = {"leading": [751, 501, 251, 1], "trailing": [999, 749, 499, 249], "linspace": [999, 666, 333]}


def schedule(**config: Any) -> tuple[DDIMScheduler, Schedule]:
    scheduler = DDIMScheduler(set_alpha_to_one=False, **{**SCHEDULE, **config})
    scheduler.set_timesteps(10)
    return scheduler, Schedule(scheduler)


@pytest.mark.parametrize(
    ("prediction", "zero_snr"),
    [
        ("epsilon", False),
        ("v_prediction", False),
        ("sample", False),
        ("v_prediction", True),
        ("sample", True),
    ],
)
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [1.0, 0.4, 0.0])
@pytest.mark.parametrize("spacing", VISITED)
def test_it_is_ddims_step(prediction: str, zero_snr: bool, clip: bool, eta: float, spacing: str) -> None:
    config = {"prediction_type": prediction, "clip_sample": clip, "rescale_betas_zero_snr": zero_snr}
    scheduler, own = schedule(**config, timestep_spacing=spacing)
    x_t, output, noise = torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert own.timesteps.tolist() == [t for t in scheduler.timesteps.tolist() if t > 0]
    for step, t in enumerate(own.timesteps.tolist()):
        mean, std = own.transition(output, step, x_t, eta)
        expected = scheduler.step(output, t, x_t, eta=eta, variance_noise=noise).prev_sample
        assert std > 0 or not eta
        # with all noise and no signal left diffusers takes the root of 0, rounded: of a processor's below 0,
        # which is no number, of another's above
        rounded = eta == 1 and own.levels[step][0].alpha == 0
        if expected.isfinite().all():
            atol = 2e-3 if rounded else 1e-6
            torch.testing.assert_close(mean + std * noise, expected, rtol=1e-6, atol=atol)
        assert mean.isfinite().all()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_with_all_of_its_noise_it_is_ddpms_step(prediction: str) -> None:
    scheduler, own = schedule(prediction_type=prediction, clip_sample=False)
    ddpm = DDPMScheduler(prediction_type=prediction, clip_sample=False, **SCHEDULE)
    ddpm.set_timesteps(10)
    assert torch.equal(ddpm.timesteps, scheduler.timesteps)
    x_t, output = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for step, t in enumerate(own.timesteps[:-1].tolist()):  # DDPM's last step goes to ᾱ = 1
        mean, std = own.transition(output, step, x_t)
        noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
        expected = ddpm.step(output, t, x_t, generator=torch.Generator().manual_seed(1)).prev_sample
        torch.testing.assert_close(mean + std * noise, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 4, 20])
@pytest.mark.parametrize("spacing", VISITED)
def test_without_noise_pictures_are_the_pipelines(
    steps: int, spacing: str, tiny_pipeline_folder: Path
) -> None:
    """Of the whole trajectory; one step of linspace alone starts without noise, and decides nothing."""
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, timestep_spacing=spacing)
    sampler = Sampler(pipeline, num_steps=steps, guidance_scale=3.0)
    if (steps, spacing) == (1, "linspace"):
        with pytest.raises(ValueError, match="nothing to decide; take more steps"):
            DenoiserPolicy(sampler)
        return
    policy = DenoiserPolicy(sampler, eta=1e-9)
    if steps == 4:
        assert policy.timesteps.tolist() == VISITED[spacing]
    x_T = seeded_noise(sampler.latent_shape, 0, "test", range(2))
    x_t, prompts = x_T, ["a dog", "a cat"]
    with torch.no_grad():
        for step in range(len(policy.timesteps)):
            x_t, _ = policy(x_t, step, prompts)
        torch.testing.assert_close(policy.decode(x_t, prompts), sampler(x_T, prompts), rtol=1e-5, atol=1e-5)


def test_a_schedule_without_any_signal_needs_another_prediction() -> None:
    with pytest.raises(ValueError, match="zero terminal SNR"):
        schedule(rescale_betas_zero_snr=True, timestep_spacing="trailing")
