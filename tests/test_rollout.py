"""What is recorded of samples and their decisions."""

from pathlib import Path

import pytest
import torch

from diffalign import Sampler, load_pipeline
from diffalign.diffusion.sampler import seeded_noise
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.policies.noise import NoiseDistribution
from diffalign.rollout import INITIAL_NOISE, Rollout, collect, collect_trajectories
from tests.toys import AnalyticPolicy, Toy

LATENT, PROMPTS = (2, 4, 4), ["a dog", "a cat"]


def test_branches_share_what_comes_before_the_interval(tiny_pipeline_folder: Path) -> None:
    sampler = Sampler(load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=4, guidance_scale=2.0)
    policy = DenoiserPolicy(sampler)
    drawn = collect_trajectories(policy, [0, 1], PROMPTS, range(1, 4), 3, seed=0)
    assert drawn.x.shape == (4, 6, 4, 8, 8) and drawn.log_prob.shape == (6, 3)
    assert drawn.indices == tuple(range(6)) and drawn.prompts == (*["a dog"] * 3, *["a cat"] * 3)
    start, end = drawn.x[0], drawn.x[-1]
    assert torch.equal(start[0], start[2]) and not torch.equal(start[0], start[3])
    assert not torch.allclose(end[0], end[1])


def test_a_noise_policy_decides_once() -> None:
    noise = NoiseDistribution(torch.full(LATENT, 0.5), torch.full(LATENT, 0.5), LATENT)
    drawn = collect(noise, Toy(LATENT), "a dog", [3, 5], seed=1)
    assert drawn.interval == INITIAL_NOISE and len(drawn.interval) == 1
    torch.testing.assert_close(drawn.x_T, 0.5 + 0.5 * seeded_noise(LATENT, 1, "train", [3, 5]))
    assert torch.equal(drawn.log_prob, noise.log_prob(drawn.x_T)) and drawn.log_prob.shape == (2, 1)
    assert (drawn.prompts, drawn.indices) == (("a dog", "a dog"), (3, 5))


def test_antithetic_samples_are_mirrored_in_pairs() -> None:
    noise = NoiseDistribution(torch.full(LATENT, 0.5), torch.full(LATENT, 0.5), LATENT)
    x_T = collect(noise, Toy(LATENT), "a dog", range(4), seed=1, antithetic=True).x_T
    torch.testing.assert_close(x_T[::2] + x_T[1::2], torch.ones(2, *LATENT))
    assert not torch.allclose(x_T[0], x_T[2])
    later = collect(noise, Toy(LATENT), "a dog", [2, 3], seed=1, antithetic=True).x_T
    assert torch.equal(later, x_T[2:])  # whatever the batch


def test_parts_are_joined_along_the_samples() -> None:
    policy = AnalyticPolicy()
    parts = [
        collect_trajectories(policy, [i], [prompt], range(2, 5), 2, seed=0)
        for i, prompt in enumerate(PROMPTS)
    ]
    whole = collect_trajectories(policy, [0, 1], PROMPTS, range(2, 5), 2, seed=0)
    joined = Rollout.cat(parts)
    assert torch.equal(joined.x, whole.x) and torch.equal(joined.log_prob, whole.log_prob)
    assert torch.equal(joined.images, whole.images)
    assert (joined.prompts, joined.indices) == (whole.prompts, whole.indices)


def test_steps_outside_a_window_have_no_noise() -> None:
    policy, at = AnalyticPolicy(steps=5), range(1, 3)
    drawn = collect_trajectories(policy, [0, 1], PROMPTS, at, 2, seed=0, quiet=True)
    assert drawn.x.shape[0] == 3 and drawn.log_prob.shape == (4, 2)
    x_T = seeded_noise(policy.sampler.latent_shape, 0, "train/-1", [0, 1])
    first = policy(x_T, 0, PROMPTS, 0.0)[0]
    torch.testing.assert_close(drawn.x[0], first.repeat_interleave(2, 0))
    x_0 = drawn.x[-1]
    for step in (3, 4):
        x_0 = policy(x_0, step, PROMPTS, 0.0)[0]
    torch.testing.assert_close(drawn.images, x_0)


def test_an_interval_is_of_decisions() -> None:
    for interval in (range(6), range(5, 5), range(-1, 2)):
        with pytest.raises(ValueError, match="is of 5 decisions"):
            collect_trajectories(AnalyticPolicy(), [0], ["a"], interval, seed=0)
    with pytest.raises(ValueError, match="2 groups need as many prompts, not 1"):
        collect_trajectories(AnalyticPolicy(), [0, 1], ["a"], range(5), seed=0)
