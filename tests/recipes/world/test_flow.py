"""The stage `flow`: its path and target, and the sampler that follows them."""

from pathlib import Path

import pytest
import torch

from recipes.world.models import build_flow_scheduler
from recipes.world.stages import denoiser
from recipes.world.stages.flow import FlowStage, trained_denoiser


@pytest.fixture
def stage() -> FlowStage:
    """The stage without its data and networks."""
    stage = object.__new__(FlowStage)
    stage.scheduler = build_flow_scheduler()
    return stage


def test_the_path_is_straight_and_the_target_its_velocity(stage: FlowStage) -> None:
    x_0, noise = torch.randn(2, 3, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    time = torch.tensor([0.0, 0.25, 1.0])
    x_t, timestep, target = stage.noised(x_0, noise, time)
    assert timestep.tolist() == [0, 250, 1000]
    torch.testing.assert_close(x_t[0], x_0[0])
    torch.testing.assert_close(x_t[1], 0.75 * x_0[1] + 0.25 * noise[1])
    torch.testing.assert_close(x_t[2], noise[2])
    torch.testing.assert_close(x_t - time.view(-1, 1, 1, 1) * target, x_0)


@pytest.mark.parametrize("steps", [1, 4, 20])
def test_the_scheduler_follows_the_path_back_to_the_data(stage: FlowStage, steps: int) -> None:
    """With the true velocity each step stays on the path, whose end the last one reaches."""
    x_0, noise = torch.randn(2, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler = stage.scheduler
    scheduler.set_timesteps(steps)
    first = scheduler.sigmas[:1]
    x_t, _, target = stage.noised(x_0, noise, first)
    for t, next_time in zip(scheduler.timesteps, scheduler.sigmas[1:], strict=True):
        x_t = scheduler.step(target, t, x_t).prev_sample
        torch.testing.assert_close(x_t, stage.noised(x_0, noise, next_time)[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(x_t, x_0, atol=1e-5, rtol=0)


def test_it_starts_from_the_last_denoiser(tmp_path: Path) -> None:
    assert trained_denoiser(tmp_path) == denoiser.UnetStage.name
    (tmp_path / "refine").mkdir()
    (tmp_path / "refine" / "ema.safetensors").touch()
    assert trained_denoiser(tmp_path) == denoiser.RefineStage.name
