"""Which schedulers' steps are Gaussian decisions; that they are diffusers' own is in tests/parity."""

from typing import Any

import pytest
from diffusers import EDMEulerScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from diffalign.diffusion import PipelineError
from diffalign.diffusion.transition import Schedule


def set_up(scheduler: Any, steps: int = 4) -> Any:
    scheduler.set_timesteps(steps)
    return scheduler


def test_a_schedule_of_no_known_kind_is_refused() -> None:
    with pytest.raises(PipelineError, match="find learns"):
        Schedule(set_up(EDMEulerScheduler()))


@pytest.mark.parametrize("sde", ["flow-grpo", "dance-grpo"])
def test_the_noise_of_flow_matching_needs_a_flow(sde: str) -> None:
    with pytest.raises(PipelineError, match=f"noise of {sde} .* EulerDiscreteScheduler does not flow"):
        Schedule(set_up(EulerDiscreteScheduler()), sde)


@pytest.mark.parametrize("sde", ["ddim", "flow-grpo", "dance-grpo"])
def test_a_flows_last_step_has_no_noise_and_is_no_decision(sde: str) -> None:
    schedule = Schedule(set_up(FlowMatchEulerDiscreteScheduler(shift=3.0)), sde)
    assert schedule.decisions == range(3) and len(schedule.timesteps) == 4
    stds = [schedule.std(step, 0.7) for step in range(4)]
    assert all(std > 0 for std in stds[:3]) and stds[3] == 0


def test_one_step_of_a_flow_decides_nothing() -> None:
    with pytest.raises(PipelineError, match="nothing to decide"):
        Schedule(set_up(FlowMatchEulerDiscreteScheduler(), 1))
