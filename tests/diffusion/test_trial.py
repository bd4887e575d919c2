"""A model is tried out before a run: what determines its pictures is measured."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionInpaintPipeline,
)
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import PipelineError
from diffalign.diffusion.trial import try_out


@pytest.fixture
def pipeline(tiny_pipeline_folder: Path) -> Any:
    return load_pipeline(tiny_pipeline_folder, device="cpu")


def test_a_deterministic_model_is_fine_and_leaves_the_random_numbers_alone(pipeline: Any) -> None:
    before = torch.get_rng_state()
    assert try_out(Sampler(pipeline, num_steps=3), "a dog") is None
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("scheduler", "steps", "said"),
    [
        (EulerAncestralDiscreteScheduler(), 3, "adds noise on the way.*use --scheduler ddim"),
        (EulerAncestralDiscreteScheduler(), 1, None),  # one step ends without noise, as Turbo's
        (DPMSolverMultistepScheduler(), 3, None),
        (DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++"), 3, "adds noise on the way"),
    ],
    ids=["ancestral", "one step", "solver", "stochastic solver"],
)
def test_what_adds_noise_on_the_way_is_seen(
    pipeline: Any, scheduler: Any, steps: int, said: str | None
) -> None:
    pipeline.scheduler = scheduler
    fault = try_out(Sampler(pipeline, num_steps=steps))
    if said is None:
        assert fault is None
    else:
        assert re.search(said, fault or "")


def test_noise_of_the_calls_own_arguments_is_seen(pipeline: Any) -> None:
    assert "adds noise on the way" in (try_out(Sampler(pipeline, num_steps=3, eta=1.0)) or "")


class Made:
    """A sampler of the pictures that `make` has of noise."""

    latent_shape = (1, 4, 4)

    def __init__(self, make: Any, scheduler: Any = None) -> None:
        scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
        self.pipeline = SimpleNamespace(dtype=torch.float32, scheduler=scheduler)
        self.make = make

    def __call__(self, noise: Tensor, prompt: str) -> Tensor:
        pictures: Tensor = self.make(noise)
        return pictures


def said(make: Any) -> str | None:
    return try_out(Made(make))  # type: ignore[arg-type]


def test_pictures_that_depend_on_their_batch_are_seen() -> None:
    assert said(lambda noise: noise) is None
    assert "depend on the batch size" in (said(lambda noise: noise + len(noise)) or "")


def test_ddim_is_not_suggested_where_it_cannot_follow() -> None:
    assert (said(lambda noise: noise + torch.randn(())) or "").endswith("not reproducible")


def test_noise_that_changes_nothing_and_blank_pictures_are_refused() -> None:
    with pytest.raises(PipelineError, match="the same picture"):
        said(lambda noise: torch.arange(16.0).view(1, 1, 4, 4).expand(len(noise), -1, -1, -1))
    with pytest.raises(PipelineError, match="two blank pictures of “a”"):
        said(torch.zeros_like)


def test_inpainting_is_tried_with_its_pictures(pipeline: Any) -> None:
    """Whose call takes other arguments."""
    inpaint = StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False)
    image, mask = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    call: dict[str, Any] = {"image": image, "mask_image": mask, "strength": 1.0, "height": 16, "width": 16}
    sampler = Sampler(inpaint, num_steps=2, **call)
    assert sampler.latent_shape == (4, 8, 8)
    try_out(sampler)
