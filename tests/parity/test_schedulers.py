"""A decision is diffusers' own step: of DDIM with its noise, and of DDPM where η = 1."""

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from diffalign.diffusion.transition import ddim_transition

SCHEDULE: dict[str, Any] = {
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def schedule(**config: Any) -> DDIMScheduler:
    scheduler = DDIMScheduler(set_alpha_to_one=False, **SCHEDULE, **config)
    scheduler.set_timesteps(10)
    return scheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_it_is_ddims_step(prediction: str, clip: bool, eta: float) -> None:
    scheduler = schedule(prediction_type=prediction, clip_sample=clip)
    x_t, output, noise = torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        mean, std = ddim_transition(scheduler, output, int(t), x_t, eta)
        expected = scheduler.step(output, t, x_t, eta=eta, variance_noise=noise).prev_sample
        assert std > 0
        torch.testing.assert_close(mean + std * noise, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_with_all_of_its_noise_it_is_ddpms_step(prediction: str) -> None:
    scheduler = schedule(prediction_type=prediction, clip_sample=False)
    ddpm = DDPMScheduler(prediction_type=prediction, clip_sample=False, **SCHEDULE)
    ddpm.set_timesteps(10)
    assert torch.equal(ddpm.timesteps, scheduler.timesteps)
    x_t, output = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps[:-1]:  # DDPM's last step goes to ᾱ = 1
        mean, std = ddim_transition(scheduler, output, int(t), x_t)
        noise = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(1))
        expected = ddpm.step(output, t, x_t, generator=torch.Generator().manual_seed(1)).prev_sample
        torch.testing.assert_close(mean + std * noise, expected, rtol=1e-4, atol=1e-4)
