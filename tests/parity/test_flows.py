"""A decision of flow matching is that of the published code, and without noise the scheduler's own step."""

import math
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from torch import Tensor
from torch.distributions import Normal

from diffalign.diffusion.transition import Schedule, gaussian_log_prob

EULER: dict[str, Any] = {
    "plain": FlowMatchEulerDiscreteScheduler(),
    "shifted": FlowMatchEulerDiscreteScheduler(shift=3.0),
    "signal counted": FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    "DPM of order 1": DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=1
    ),
}
STEPS = 10


def pair() -> tuple[Tensor, Tensor]:
    x_t, v = torch.randn(2, 2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return x_t, v


@pytest.mark.parametrize("name", EULER)
@pytest.mark.parametrize("sde", ["ddim", "flow-grpo", "dance-grpo"])
def test_without_noise_it_is_the_schedulers_own_step(name: str, sde: str) -> None:
    scheduler = EULER[name]
    scheduler.set_timesteps(STEPS)
    own = Schedule(scheduler, sde)
    x_t, v = pair()
    for step, t in enumerate(own.timesteps):
        mean, std = own.transition(v, step, x_t, 0.0)
        expected = scheduler.step(v, t, x_t).prev_sample
        assert std == 0
        torch.testing.assert_close(mean, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(own.timesteps, scheduler.timesteps) and len(own.timesteps) == STEPS


def published(v: Tensor, x: Tensor, sigma: Tensor, after: Tensor, first: Tensor, sde: str) -> Any:
    """Mean and std of Flow-GRPO (sd3_sde_with_logprob.py) and of DanceGRPO (train_grpo_flux.py)."""
    dt = after - sigma
    if sde == "flow-grpo":
        std = 0.7 * torch.sqrt(sigma / (1 - torch.where(sigma == 1, first, sigma)))
        mean = x * (1 + std**2 / (2 * sigma) * dt) + v * (1 + std**2 * (1 - sigma) / (2 * sigma)) * dt
        return mean, std * torch.sqrt(-dt)
    score = -(x - (x - sigma * v) * (1 - sigma)) / sigma**2
    return x + dt * v - 0.5 * 0.3**2 * score * dt, 0.3 * math.sqrt(-dt)


@pytest.mark.parametrize(("sde", "eta"), [("flow-grpo", 0.7), ("dance-grpo", 0.3)])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_it_is_the_published_step(sde: str, eta: float, shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(STEPS)
    own, sigmas = Schedule(scheduler, sde), scheduler.sigmas.double()
    x_t, v = pair()
    for step in own.decisions:
        mean, std = own.transition(v, step, x_t, eta)
        expected, spread = published(v.double(), x_t.double(), sigmas[step], sigmas[step + 1], sigmas[1], sde)
        torch.testing.assert_close(mean.double(), expected, rtol=1e-6, atol=1e-6)
        assert std == pytest.approx(float(spread), rel=1e-6)
        x_next = mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(step))
        reference = Normal(expected, spread).log_prob(x_next.double()).flatten(1).mean(1)
        torch.testing.assert_close(
            gaussian_log_prob(x_next, mean, std).double(), reference, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_noise_that_keeps_the_coefficients_keeps_the_level(eta: float) -> None:
    """x' = α' x_0 + σ' ε' of a denoiser that knows x_0 and ε, with ε' of variance 1."""
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(STEPS)
    own = Schedule(scheduler)
    x_0, epsilon, noise = torch.randn(3, 100_000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    for step in own.decisions:
        now, after = own.levels[step]
        mean, std = own.transition(epsilon - x_0, step, now.alpha * x_0 + now.sigma * epsilon, eta)
        rest = (mean + std * noise - after.alpha * x_0) / after.sigma
        assert float(rest.std()) == pytest.approx(1, abs=0.01)
        assert float((rest * x_0).mean()) == pytest.approx(0, abs=0.01)


def test_each_level_of_a_solver_that_visits_it_twice_is_one_step() -> None:
    scheduler = FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(STEPS)
    own = Schedule(scheduler)
    assert len(own.timesteps) == STEPS and len(scheduler.timesteps) == 2 * STEPS - 1
