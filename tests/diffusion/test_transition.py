"""Which pipelines have Gaussian decisions; that these are diffusers' own is in tests/parity."""

from types import SimpleNamespace

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler

from diffalign.diffusion import PipelineError
from diffalign.diffusion.transition import Schedule


def test_a_pipeline_that_ddim_cannot_follow_is_refused() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(PipelineError, match="find learns"):
        Schedule(SimpleNamespace(scheduler=scheduler), 4)
