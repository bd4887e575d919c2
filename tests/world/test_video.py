"""The world's sibling that moves, as it ships: loaded by its alias, and right about common prompts."""

from typing import Any

import pytest
import torch
from diffusers import TextToVideoSDPipeline

from diffalign import Sampler, find, load_pipeline
from diffalign.diffusion import seeded_noise
from diffalign.evaluation import evaluate
from diffalign.metrics import embedder
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards.world_scene import world_scene
from diffalign.world import VIDEO_FOLDER, WORLD_FOLDER
from diffalign.world.clips import FRAMES
from diffalign.world.judge import judge

PROMPT = "a banana standing still"


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """The model `world-video`."""
    return load_pipeline("world-video", device="cpu")


def test_it_is_modelscopes_pipeline_with_the_worlds_autoencoder(pipeline: Any) -> None:
    assert type(pipeline) is TextToVideoSDPipeline
    assert pipeline.config["_name_or_path"] == "world-video"
    world: Any = load_pipeline("world", device="cpu")
    ours, its = pipeline.vae.state_dict(), world.vae.state_dict()
    assert all(torch.equal(ours[name], its[name]) for name in its)


def test_it_ships_its_own_parts_alone() -> None:
    own = {"unet", "scheduler", "text_encoder", "tokenizer"}
    assert {file.name for file in VIDEO_FOLDER.iterdir() if file.is_dir()} == own
    assert sum(file.stat().st_size for file in VIDEO_FOLDER.rglob("*") if file.is_file()) < 16e6
    assert (WORLD_FOLDER / "vae").is_dir()


def test_the_noise_alone_decides_the_video(pipeline: Any) -> None:
    sampler = Sampler(pipeline, num_steps=2, batch_size=4)
    assert sampler.latent_shape == (8, FRAMES, 8, 8)
    noise = seeded_noise(sampler.latent_shape, 0, "test", range(3))
    videos = sampler(noise, PROMPT)
    assert videos.shape == (3, FRAMES, 3, 64, 64)
    torch.manual_seed(1)  # what else is drawn must not matter
    assert torch.equal(sampler(noise, PROMPT), videos)
    torch.testing.assert_close(sampler(noise[1:2], PROMPT), videos[1:2], atol=1e-4, rtol=0)


def test_it_draws_what_a_common_prompt_says(pipeline: Any) -> None:
    sampler = Sampler(pipeline, num_steps=10, batch_size=8)
    videos = sampler(seeded_noise(sampler.latent_shape, 0, "test", range(8)), PROMPT)
    assert judge(videos, [PROMPT] * 8)[0].sum() >= 4


def test_fresh_videos_are_judged_and_their_steadiness_measured(pipeline: Any) -> None:
    sampler = Sampler(pipeline, num_steps=2, batch_size=4)
    samples = evaluate(
        sampler,
        PROMPT,
        NoiseDistribution.standard(sampler.latent_shape),
        world_scene,
        judge=judge,
        embed=embedder("world-video"),
        n=3,
        seed=0,
    )
    assert samples.steadiness is not None and samples.steadiness.shape == (3,)
    assert samples.embeddings is not None and samples.embeddings.shape == (3, 128)


def test_find_learns_the_noise_of_a_video(pipeline: Any) -> None:
    run = find(pipeline, PROMPT, "world-scene", queries=6, batch=3, num_steps=1)
    assert run.run().sample(2, seed=0).shape == (2, 8, FRAMES, 8, 8)
