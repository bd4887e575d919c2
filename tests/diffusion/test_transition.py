"""A decision is diffusers' own DDIM step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from diffalign.diffusion import PipelineError
from diffalign.diffusion.transition import ddim_scheduler, ddim_transition, gaussian_log_prob


def schedule(**config: Any) -> DDIMScheduler:
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", set_alpha_to_one=False, **config)
    scheduler.set_timesteps(10)
    return scheduler


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_it_is_the_schedulers_step(prediction: str, clip: bool, eta: float) -> None:
    scheduler = schedule(prediction_type=prediction, clip_sample=clip, steps_offset=1)
    x_t, output, noise = torch.randn(3, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    for t in scheduler.timesteps:
        mean, std = ddim_transition(scheduler, output, int(t), x_t, eta)
        expected = scheduler.step(output, t, x_t, eta=eta, variance_noise=noise).prev_sample
        assert std > 0
        torch.testing.assert_close(mean + std * noise, expected, rtol=1e-5, atol=1e-5)


def test_log_prob_is_that_of_torch() -> None:
    x, mean = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = torch.distributions.Normal(mean, 0.3).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_log_prob(x, mean, 0.3), expected)


def test_a_pipeline_that_ddim_cannot_follow_is_refused() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(PipelineError, match="find learns"):
        ddim_scheduler(SimpleNamespace(scheduler=scheduler), 4)
