"""What a pipeline's call says of itself before its first step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, FluxPipeline, UNet2DModel

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import PipelineError
from diffalign.diffusion.probe import Latents, first_forward, latents_of, prompt_states
from tests.families import save_family


def test_prompts_are_read_by_the_pipelines_text_encoder(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    dog, cat = prompt_states(pipeline, "a dog"), prompt_states(pipeline, "a cat")
    assert dog.ndim == 2 and dog.shape == cat.shape and not torch.equal(dog, cat)
    assert dog.shape[1] == pipeline.text_encoder.config.hidden_size


def test_padding_that_the_denoiser_does_not_see_is_left_out(tmp_path: Path) -> None:
    pipeline = load_pipeline(save_family("pixart", tmp_path / "pixart"), device="cpu")
    call = {"height": 16, "width": 16, "use_resolution_binning": False}
    short, long = (prompt_states(pipeline, prompt, **call) for prompt in ("a cat", "a cat on a mat"))
    assert 0 < len(short) < len(long) < 100


def test_the_calls_own_random_numbers_are_left_alone(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    before = torch.get_rng_state()
    Sampler(pipeline, num_steps=2)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("shape", "drawn", "grid"),
    [
        ((4, 8, 8), (4, 8, 8), None),
        ((64, 4), (1, 16, 16), (8, 8)),  # FLUX: patches of 2 × 2
        ((32, 16), (1, 4, 8, 16), (4, 8)),  # Qwen-Image, of one frame
        ((192, 8), (8, 3, 8, 8), (8, 8)),  # LTX
        ((100, 4), (1, 16, 16), None),  # of no grid
        ((512,), (512,), None),
    ],
)
def test_packed_latents_have_a_grid(shape: Any, drawn: Any, grid: Any) -> None:
    assert Latents(shape, drawn).grid == grid


def test_latents_are_given_as_the_pipeline_takes_them(tmp_path: Path) -> None:
    flux = load_pipeline(save_family("flux", tmp_path / "flux"), device="cpu")
    assert isinstance(flux, FluxPipeline)
    assert latents_of(flux, height=16, width=32).shape == (128, 4)
    assert latents_of(flux, height=16, width=32).grid == (8, 16)
    flux_2 = load_pipeline(save_family("flux_2", tmp_path / "flux_2"), device="cpu")
    found = latents_of(flux_2, height=16, width=16)
    assert found.shape == found.drawn == (4, 8, 8)  # which it packs itself


def test_a_model_without_prompts_is_refused() -> None:
    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    with pytest.raises(PipelineError, match="DDIMPipeline takes no prompt"):
        Sampler(DDIMPipeline(unet=unet, scheduler=DDIMScheduler()), num_steps=2)


def test_a_call_without_its_denoiser_is_refused(tiny_pipeline_folder: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    unused = type("Unused", (type(pipeline),), {"__call__": lambda self, prompt=None, **call: None})
    with pytest.raises(PipelineError, match="never calls its UNet2DConditionModel"):
        first_forward(unused(**pipeline.components, requires_safety_checker=False))


def test_what_makes_no_pictures_is_refused(tiny_pipeline_folder: Path) -> None:
    pipeline: Any = load_pipeline(tiny_pipeline_folder, device="cpu")
    own, noise = Sampler(pipeline, num_steps=2), torch.randn(1, 4, 8, 8)
    with pytest.raises(PipelineError, match="makes audios, neither images nor frames"):
        own.pictures(noise, ["a dog"], lambda latents, prompts: SimpleNamespace(audios=latents))


@pytest.mark.parametrize("wrong", [{"height": -16, "width": 16}, {"height": 16, "width": -16}])
def test_sizes_that_a_pipeline_cannot_make_are_refused_in_one_line(
    wrong: dict[str, int], tiny_pipeline_folder: Path
) -> None:
    with pytest.raises(PipelineError, match="cannot be called with a prompt and height, width") as caught:
        Sampler(load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=2, **wrong)
    assert "\n" not in str(caught.value)


def test_the_names_that_an_unknown_argument_is_compared_with_can_be_given(tiny_pipeline_folder: Path) -> None:
    with pytest.raises(PipelineError, match="num_frames") as caught:
        Sampler(load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=2, num_frames=3)
    assert "prompt_embeds," not in str(caught.value).replace("negative_prompt_embeds", "")
    assert "generator" not in str(caught.value)
