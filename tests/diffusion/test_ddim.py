"""Which pipelines DDIM can sample: a schedule or prediction that it reads otherwise makes other pictures."""

from pathlib import Path
from typing import Any

import pytest
from diffusers import (
    CogVideoXDDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    UniPCMultistepScheduler,
)

from diffalign import find, load_pipeline
from diffalign.diffusion import PipelineError
from diffalign.diffusion.pipeline import takes_ddim, with_ddim

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
REFUSED = {
    "flow matching": FlowMatchEulerDiscreteScheduler(),
    "flow prediction, DPM": DPMSolverMultistepScheduler(**FLOW),
    "flow prediction, UniPC": UniPCMultistepScheduler(**FLOW),
    "a shifted schedule": CogVideoXDDIMScheduler(snr_shift_scale=3.0),
}
TAKEN = {
    "DPM": DPMSolverMultistepScheduler(),
    "Euler": EulerDiscreteScheduler(rescale_betas_zero_snr=True),
    "LCM": LCMScheduler(),
    "PNDM": PNDMScheduler(),
}


@pytest.fixture
def pipeline(tiny_pipeline_folder: Path) -> Any:
    return load_pipeline(tiny_pipeline_folder, device="cpu")


@pytest.mark.parametrize("scheduler", REFUSED.values(), ids=REFUSED)
def test_what_ddim_would_read_otherwise_is_refused(scheduler: Any, pipeline: Any) -> None:
    pipeline.scheduler = scheduler
    assert not takes_ddim(pipeline)
    with pytest.raises(PipelineError, match="use --scheduler keep"):
        find(pipeline, "a dog", lambda images, prompts: images.flatten(1).mean(1), preset="paper")


@pytest.mark.parametrize("scheduler", TAKEN.values(), ids=TAKEN)
def test_other_schedulers_of_the_same_schedule_are_taken(scheduler: Any, pipeline: Any) -> None:
    pipeline.scheduler = scheduler
    assert takes_ddim(pipeline)
    ddim = with_ddim(pipeline).scheduler
    assert ddim.config.beta_end == scheduler.config.beta_end and not ddim.config.clip_sample
