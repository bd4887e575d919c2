"""Objectives of trajectories against hand-worked values; their identities are in tests/parity."""

import math

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from diffalign.diffusion.transition import Schedule
from diffalign.objectives import dpo_loss, dpok_loss, gaussian_kl


def test_dpo_by_hand_and_where_it_pushes() -> None:
    log_prob = torch.tensor([[0.2], [0.1], [0.0], [0.3]], requires_grad=True)
    loss, _ = dpo_loss(log_prob, torch.zeros(4, 1), beta=2.0)
    margins = [2 * (0.2 - 0.0), 2 * (0.1 - 0.3)]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 2
    assert loss.item() == pytest.approx(expected)
    pushed = torch.autograd.grad(loss, log_prob)[0]
    assert (pushed[:2] < 0).all() and (pushed[2:] > 0).all()  # winners up, losers down
    with pytest.raises(ValueError, match="pairs"):
        dpo_loss(log_prob[:3], torch.zeros(3, 1), beta=1.0)


def test_dpos_clamp_is_that_of_d3po() -> None:
    """−log σ(β log clip(ρ_w) − β log clip(ρ_l)), as its script has it."""
    log_prob = torch.tensor([[0.2], [0.02], [0.01], [-0.3]], requires_grad=True)
    loss, diagnostics = dpo_loss(log_prob, torch.zeros(4, 1), beta=2.0, clamp=0.1)
    margins = [2 * (math.log(1.1) - 0.01), 2 * (0.02 - math.log(0.9))]
    assert loss.item() == pytest.approx(sum(math.log1p(math.exp(-margin)) for margin in margins) / 2)
    pushed = torch.autograd.grad(loss, log_prob)[0]
    assert pushed[0] == pushed[3] == 0 and pushed[1] < 0 < pushed[2]
    assert diagnostics.clip_fraction == 0.5


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("eta", [1.0, 0.4])
def test_dpoks_published_regulariser_is_the_difference_of_predicted_noise(
    prediction: str, eta: float
) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction, clip_sample=False, steps_offset=1)
    scheduler.set_timesteps(20)
    schedule = Schedule(scheduler)
    x_t, f, f_0 = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for step, (now, _) in enumerate(schedule.levels):
        mean, std = schedule.transition(f, step, x_t, eta)
        mean_0, _ = schedule.transition(f_0, step, x_t, eta)
        scale = {"epsilon": 1.0, "v_prediction": now.alpha, "sample": now.alpha / now.sigma}
        noise = (scale[prediction] * (f - f_0)).square().flatten(1).mean(1)
        found = schedule.epsilon_weight(step, eta) * gaussian_kl(mean.double(), mean_0.double(), std)
        torch.testing.assert_close(found, noise, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("sde", ["ddim", "flow-grpo", "dance-grpo"])
def test_so_it_is_of_flow_matching(sde: str) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(6)
    schedule = Schedule(scheduler, sde)
    x_t, f, f_0 = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    for step in schedule.decisions:
        mean, std = schedule.transition(f, step, x_t, 0.7)
        mean_0, _ = schedule.transition(f_0, step, x_t, 0.7)
        noise = (schedule.levels[step][0].alpha * (f - f_0)).square().flatten(1).mean(1)
        found = schedule.epsilon_weight(step, 0.7) * gaussian_kl(mean.double(), mean_0.double(), std)
        torch.testing.assert_close(found, noise, rtol=2e-3, atol=1e-6)


def test_divergences_of_other_shapes_are_refused() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4)
    with pytest.raises(ValueError, match="one shape"):
        gaussian_kl(a, b[:1], 0.3)
    column = torch.zeros(3, 1)
    with pytest.raises(ValueError, match=r"kl must be \(B, K\)"):
        dpok_loss(column, column, column, gaussian_kl(a, b, 0.3), clip_range=0.1, alpha=1.0, beta=1.0)
