"""Every family of pipelines, of its real classes, loaded from disk: noise is learned and searched for, and
the denoiser tuned, without a word about the family in the package."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign import NoiseDistribution, Sampler, anchors, find, load_pipeline, noise_ppo, search, tune
from diffalign.diffusion import seeded_noise
from diffalign.diffusion.learned_adapter import load_adapter
from diffalign.diffusion.transition import is_flow
from diffalign.policies.denoiser import DenoiserPolicy
from tests.families import BY_NAME, save_family

PROMPT, OTHER, LONGER = "a red dog", "a cat", "a cat on a mat"
STEPS = 3


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


#: Denoiser evaluations of a step: of guidance that joins two, calls twice, or is an argument; some have none.
PASSES = {
    "stable_diffusion": 2,
    "stable_diffusion_3": 2,
    "z_image": 2,
    "qwen_image": 2,
    "wan": 2,
    "flux": 1,
    "hunyuan_video": 1,
    "latent_consistency": 1,
}


class Family:
    """A saved pipeline, and how it is called."""

    def __init__(self, name: str, folder: Path) -> None:
        self.folder, self.call = save_family(name, folder), BY_NAME[name][1]

    def load(self) -> Any:
        return load_pipeline(self.folder, device="cpu")

    def sampler(self, pipeline: Any, num_steps: int = STEPS) -> Sampler:
        return Sampler(pipeline, num_steps=num_steps, batch_size=4, **self.call)

    @property
    def settings(self) -> dict[str, Any]:
        return {"num_steps": STEPS, "batch_size": 4, "call": self.call}

    def pictures(self, pipeline: Any, noise: Tensor, prompts: Sequence[str]) -> Tensor:
        """By diffusers alone; some schedulers draw noise on the way."""
        torch.manual_seed(0)
        call = dict(self.call)
        if "negative_prompt" in call:
            call["negative_prompt"] = [call["negative_prompt"]] * len(prompts)
        made = pipeline(
            prompt=list(prompts), latents=noise, num_inference_steps=STEPS, output_type="pt", **call
        )
        return torch.as_tensor(made.images if hasattr(made, "images") else made.frames).float()


@pytest.fixture(scope="module", params=BY_NAME)
def family(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        yield Family(request.param, tmp_path_factory.mktemp("family") / request.param)


def test_noise_is_learned_and_makes_the_same_pictures_in_plain_diffusers(
    family: Family, tmp_path: Path
) -> None:
    pipeline = family.load()
    sampler = family.sampler(pipeline)
    found = find(pipeline, PROMPT, brightness, queries=24, **family.settings).run()
    found.save(tmp_path / "noise.safetensors")
    noise = NoiseDistribution.load(tmp_path / "noise.safetensors").sample(2, seed=0)
    torch.manual_seed(0)
    ours, plain = sampler(noise, PROMPT), family.pictures(pipeline, noise, [PROMPT] * 2)
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=0)
    assert ours.ndim == (5 if sampler.makes_videos else 4) and ours.shape[-3] == 3
    assert sampler.passes == PASSES.get(family.folder.name, sampler.passes)
    if "Multistep" in type(pipeline.scheduler).__name__ or is_flow(pipeline.scheduler):
        mixed = sampler(noise, [PROMPT, LONGER])  # whatever else is in the batch
        torch.testing.assert_close(mixed[:1], sampler(noise[:1], PROMPT), atol=1e-4, rtol=0)


@pytest.mark.parametrize("algorithm", ["best-of-n", "halving", "zero-order", "spectral"])
def test_noise_is_searched_for(family: Family, algorithm: str) -> None:
    if algorithm == "spectral" and min(family.sampler(family.load()).latent_shape[-2:]) < 2:
        pytest.skip("latents of one pixel have no band")
    changes: dict[str, Any] = {"algorithm": algorithm, "queries": 8, "keep": 2, "population": 3}
    kept = search(family.load(), PROMPT, brightness, preview_steps=2, **changes, **family.settings).run()
    assert len(kept.x_T) == 2 and len(kept.rewards) + len(kept.previews) == 8
    assert kept.kept_rewards()[0] >= kept.kept_rewards()[1]


@pytest.mark.parametrize("learn", [noise_ppo, anchors], ids=["noise-ppo", "anchors"])
def test_generators_read_its_prompts(family: Family, learn: Any) -> None:
    sizes = {"prompts_per_round": 2, "samples_per_prompt": 2, "rounds": 2}
    generator = learn(family.load(), [PROMPT, LONGER], brightness, **sizes, **family.settings).run()
    drawn = generator.sample([PROMPT, OTHER], seed=0)  # one of them was never seen
    assert drawn.shape == (2, *family.sampler(family.load()).latent_shape) and drawn.isfinite().all()


ONE_ROUND: dict[str, Any] = {"rounds": 1, "window": 0, "min_count": 2, "lora_rank": 2, "learning_rate": 1e-2}
METHODS: dict[str, dict[str, Any]] = {
    "ddpo": {"samples": 8, "update_batch": 8},
    "b2-ddpo": {"samples": 6, "update_batch": 6, "first_steps": 2, "threshold": 0.01},
}


@pytest.mark.parametrize("preset", METHODS)
def test_its_denoiser_is_tuned_and_the_adapter_is_loaded_again(
    family: Family, preset: str, tmp_path: Path
) -> None:
    pipeline = family.load()
    given = {**ONE_ROUND, **METHODS[preset], **family.settings, "num_steps": 4}
    run = tune(pipeline, [PROMPT, LONGER], brightness, preset=preset, **given)
    rounds = list(run)
    assert rounds[-1].update.optimiser_steps == 1
    assert rounds[-1].update.figures["first_ratio_error"] < 1e-4
    run.result.save(tmp_path)
    noise = seeded_noise(family.sampler(pipeline).latent_shape, 0, "test", range(1))
    tuned, again = family.pictures(pipeline, noise, [OTHER]), family.load()
    before = family.pictures(again, noise, [OTHER])
    load_adapter(again, tmp_path)
    torch.testing.assert_close(family.pictures(again, noise, [OTHER]), tuned, atol=1e-5, rtol=0)
    assert not torch.equal(before, tuned)


def test_without_noise_its_decisions_are_the_pipelines_own(family: Family) -> None:
    """Of solvers of first order; of flow matching the pictures are the pipeline's."""
    pipeline = family.load()
    sampler = family.sampler(pipeline)
    policy = DenoiserPolicy(sampler)
    noise, prompts = seeded_noise(sampler.latent_shape, 0, "test", range(2)), [PROMPT, LONGER]
    x_t = noise
    with torch.no_grad():
        for step in range(len(policy.timesteps)):
            x_t, std = policy(x_t, step, prompts, 0.0)
            assert std == 0
        made = policy.decode(x_t, prompts)
    assert made.isfinite().all()
    if type(pipeline.scheduler).__name__ in ("FlowMatchEulerDiscreteScheduler", "DDIMScheduler"):
        torch.testing.assert_close(made, sampler(noise, prompts), atol=1e-5, rtol=0)
