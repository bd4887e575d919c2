"""A denoiser's decisions without noise are the pipeline's own sampling, in every family."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import PipelineError, seeded_noise
from diffalign.policies.denoiser import TARGETS, DenoiserPolicy
from tests import families

SCHEDULE = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


def stable_diffusion(folder: Path) -> Any:
    return load_pipeline(folder, device="cpu")


def stable_diffusion_xl(folder: Path) -> Any:
    return sampled_by_ddim(families.stable_diffusion_xl())


def sampled_by_ddim(pipeline: Any) -> Any:
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    pipeline.scheduler = DDIMScheduler(**SCHEDULE)
    return pipeline


def stable_diffusion_xl_of_whitened_latents(folder: Path) -> Any:
    pipeline = stable_diffusion_xl(folder)
    pipeline.vae.register_to_config(latents_mean=[0.5, -1.0, 0.0, 2.0], latents_std=[2.0, 1.0, 0.5, 1.5])
    return pipeline


def derived(folder: Path) -> Any:
    class Own(StableDiffusionPipeline):  # type: ignore[misc]
        """A pipeline of one's own."""

    base = stable_diffusion(folder)
    return Own(**base.components, requires_safety_checker=False)


def pixart(folder: Path) -> Any:
    return sampled_by_ddim(families.pixart())


FAMILIES = [
    stable_diffusion,
    stable_diffusion_xl,
    stable_diffusion_xl_of_whitened_latents,
    derived,
    pixart,
]


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("negative", [{}, {"negative_prompt": "a cat"}], ids=["plain", "negative"])
def test_without_noise_it_samples_as_the_pipeline(
    make: Callable[[Path], Any], guidance: float, negative: dict[str, str], tiny_pipeline_folder: Path
) -> None:
    torch.manual_seed(0)
    pipeline = make(tiny_pipeline_folder)
    call: dict[str, Any] = dict(negative)
    if make is pixart:
        call |= {"use_resolution_binning": False, "height": 16, "width": 16}
    sampler = Sampler(pipeline, num_steps=3, guidance_scale=guidance, **call)
    noise, prompts = seeded_noise(sampler.latent_shape, 0, "test", range(2)), ["a dog", "two cats"]
    expected = sampler(noise, prompts)
    policy = DenoiserPolicy(sampler, eta=0.0, rank=0 if make is pixart else 4)
    x_t = noise
    with torch.no_grad():
        for step in range(3):
            x_t, std = policy(x_t, step, prompts)
            assert std == 0
    torch.testing.assert_close(policy.decode(x_t, prompts), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("make", FAMILIES[:2], ids=lambda make: make.__name__)
@pytest.mark.parametrize("targets", TARGETS)
def test_the_adapter_is_loaded_by_its_family(
    targets: str, make: Callable[[Path], Any], tiny_pipeline_folder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    pipeline = make(tiny_pipeline_folder)
    policy = DenoiserPolicy(Sampler(pipeline, num_steps=2), targets=targets)
    with torch.no_grad():
        for parameter in policy.learned():
            parameter.add_(0.1)
    x_t = seeded_noise((4, 8, 8), 0, "test", range(1))
    tuned, _ = policy(x_t, 0, ["a dog"])
    assert not torch.allclose(tuned, policy.pretrained(x_t, 0, ["a dog"])[0])
    policy.save(tmp_path)
    pipeline.unload_lora_weights()
    pipeline.load_lora_weights(tmp_path)
    loaded, _ = policy(x_t, 0, ["a dog"])
    torch.testing.assert_close(loaded, tuned, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "make", [families.animate_diff, families.model_scope], ids=lambda make: make.__name__
)
def test_all_layers_of_a_video_model_take_an_adapter(make: Callable[[], Any]) -> None:
    """But for those that mix frames and that no adapter can stand for."""
    sampler = Sampler(make(), num_steps=2, num_frames=2)
    policy = DenoiserPolicy(sampler, targets="all")
    x_t = seeded_noise(sampler.latent_shape, 0, "test", range(1))
    first, _ = policy(x_t, 0, ["a dog"])
    with torch.no_grad():
        for parameter in policy.learned():
            parameter.add_(0.1)
    assert not torch.allclose(first, policy(x_t, 0, ["a dog"])[0])


def test_all_weights_can_be_tuned_and_are_frozen_within(tiny_pipeline_folder: Path, tmp_path: Path) -> None:
    policy = DenoiserPolicy(Sampler(load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=2), rank=0)
    x_t = seeded_noise((4, 8, 8), 0, "test", range(1))
    first, _ = policy(x_t, 0, ["a dog"])
    with torch.no_grad():
        for parameter in policy.learned():
            parameter.add_(0.1)
    changed, _ = policy(x_t, 0, ["a dog"])
    assert not torch.allclose(first, changed)
    assert torch.equal(policy.pretrained(x_t, 0, ["a dog"])[0], first)
    policy.save(tmp_path)
    assert torch.equal(policy(x_t, 0, ["a dog"])[0], changed)
    again = UNet2DConditionModel.from_pretrained(tmp_path)
    policy.denoiser.load_state_dict(again.state_dict())
    assert torch.equal(policy(x_t, 0, ["a dog"])[0], changed)


@pytest.mark.parametrize("rank", [4, 0])
def test_a_pipeline_is_had_back_as_it_was(rank: int, tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    policy = DenoiserPolicy(Sampler(pipeline, num_steps=2), rank=rank, gradient_checkpointing=True)
    assert not any(parameter.requires_grad for parameter in pipeline.vae.parameters())
    with torch.no_grad():
        for parameter in policy.learned():
            parameter.add_(0.1)
    policy.unload()
    assert not pipeline.unet.is_gradient_checkpointing
    assert all(p.requires_grad for part in (pipeline.unet, pipeline.vae) for p in part.parameters())
    after = pipeline.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    DenoiserPolicy(Sampler(pipeline, num_steps=2))  # and tuned again


def test_a_schedule_of_another_scheduler_gives_decisions_with_noise(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    pipeline.scheduler = DPMSolverMultistepScheduler()  # linspace to t = 0, and no word of clipping
    policy = DenoiserPolicy(Sampler(pipeline, num_steps=4))
    assert policy.timesteps.tolist() == [999, 749, 500, 250]
    assert not policy.schedule.clips.config.clip_sample
    x_t = seeded_noise((4, 8, 8), 0, "test", range(1))
    assert all(policy(x_t, step, ["a dog"])[1] > 0 for step in range(4))


def test_what_cannot_be_tuned_is_refused(tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twice = load_pipeline(tiny_pipeline_folder, device="cpu")
    with monkeypatch.context() as patch, pytest.raises(PipelineError, match="lora_rank 0 tunes"):
        patch.setitem(TARGETS, "attention", ["to_nothing"])
        DenoiserPolicy(Sampler(twice, num_steps=2))
    before = twice.unet.state_dict().keys()
    with monkeypatch.context() as patch, pytest.raises(PipelineError, match="take no such adapter"):
        patch.setitem(TARGETS, "attention", ["to_q", "up_blocks.1"])  # the latter is no layer
        DenoiserPolicy(Sampler(twice, num_steps=2))
    assert twice.unet.state_dict().keys() == before
    assert all(parameter.requires_grad for parameter in twice.unet.parameters())
    first = DenoiserPolicy(Sampler(twice, num_steps=2))
    with pytest.raises(PipelineError, match="an adapter already"):
        DenoiserPolicy(Sampler(twice, num_steps=2))
    assert first.learned()  # goes on
    first.unload()
    twice.transformer_2 = twice.unet  # as Wan 2.2 has
    with pytest.raises(PipelineError, match="two denoisers"):
        DenoiserPolicy(Sampler(twice, num_steps=2))
    half = load_pipeline(tiny_pipeline_folder, device="cpu", dtype=torch.bfloat16)
    with pytest.raises(PipelineError, match="float32"):
        DenoiserPolicy(Sampler(half, num_steps=2), rank=0)


def test_a_pipeline_that_changes_latents_after_a_step_is_refused(tiny_pipeline_folder: Path) -> None:
    base = load_pipeline(tiny_pipeline_folder, device="cpu")
    inpainting = StableDiffusionInpaintPipeline(**base.components, requires_safety_checker=False)
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 8:] = 1
    sampler = Sampler(inpainting, num_steps=2, image=torch.zeros(1, 3, 16, 16), mask_image=mask, strength=1.0)
    x_t = seeded_noise(sampler.latent_shape, 0, "test", range(1))
    with pytest.raises(PipelineError, match="changes latents after each step"):
        DenoiserPolicy(sampler)(x_t, 0, ["a dog"])


def test_an_autoencoder_that_overflows_is_decoded_in_full_precision(tiny_pipeline_folder: Path) -> None:
    half = stable_diffusion_xl(tiny_pipeline_folder).to(torch.float16)
    policy, x_0 = DenoiserPolicy(Sampler(half, num_steps=2)), seeded_noise((4, 8, 8), 0, "test", range(1))
    exact = policy.decode(x_0, ["a dog"])
    assert half.vae.dtype == torch.float16
    half.vae.register_to_config(force_upcast=False)
    rough = policy.decode(x_0, ["a dog"])
    assert 0 < (rough - exact).abs().max() < 0.01


def test_adapters_start_as_published(tiny_pipeline_folder: Path) -> None:
    """A ~ N(0, 1/r²), B = 0, as in diffusers' LoRA layers of 2023; PEFT's own A is uniform, and smaller."""
    policy = DenoiserPolicy(Sampler(stable_diffusion(tiny_pipeline_folder), num_steps=4), rank=8)
    parts = dict(policy.denoiser.named_parameters())
    down = torch.cat([p.detach().flatten() for name, p in parts.items() if "lora_A" in name])
    assert float(down.std()) == pytest.approx(1 / 8, rel=0.05)
    assert float(down.abs().max()) > 3 / 8  # no uniform distribution of that std
    assert not any(p.any() for name, p in parts.items() if "lora_B" in name)
