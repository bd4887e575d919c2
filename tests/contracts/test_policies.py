"""What every policy promises of its distributions over decisions."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign import Sampler, load_artifact, load_pipeline
from diffalign.diffusion.sampler import seeded_noise
from diffalign.policies import NoiseDistribution, NoiseGenerator
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.rollout import collect, collect_trajectories
from tests.toys import Toy, sides

from .tables import LATENT, METADATA, NOISE_POLICIES, PROMPTS

every = pytest.mark.parametrize("name", NOISE_POLICIES)


def distribution(name: str) -> NoiseDistribution:
    entry = NOISE_POLICIES[name]
    return entry.of(entry.make())


@every
def test_shapes(name: str) -> None:
    noise = distribution(name)
    x_T = noise.sample(5, 0)
    assert x_T.shape == (5, *LATENT) and x_T.dtype == torch.float32 and x_T.isfinite().all()
    log_prob = noise.log_prob(x_T)
    assert log_prob.shape == (5, 1) and log_prob.isfinite().all()
    torch.testing.assert_close(noise.log_prob(x_T, "sum"), math.prod(LATENT) * log_prob)
    assert noise.kl().shape == () and noise.kl() > 0
    assert noise.center().shape == noise.mean.shape[noise.weights is not None :]
    assert noise.effective_components() >= 1
    with pytest.raises(ValueError, match="reduction must be 'mean' or 'sum', not 'max'"):
        noise.log_prob(x_T, "max")


@every
def test_the_seed_and_the_number_determine_a_sample(name: str) -> None:
    noise, again = distribution(name), distribution(name)
    whole = noise.sample(16, 3)
    assert torch.equal(whole, again.sample(16, 3))
    assert not torch.equal(whole, noise.sample(16, 4))
    assert not torch.equal(whole, noise.sample(16, 3, stream="evaluate"))
    for size in (1, 4):
        parts = [noise.sample(size, 3, start=start) for start in range(0, 16, size)]
        torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    apart = torch.cat([noise.log_prob(x[None]) for x in whole])
    torch.testing.assert_close(apart, noise.log_prob(whole), atol=1e-5, rtol=1e-5)


@every
def test_samples_are_likely_where_they_come_from(name: str) -> None:
    noise, standard = distribution(name), NoiseDistribution.standard(LATENT)
    own, other = noise.sample(64, 0), standard.sample(64, 0)
    assert noise.log_prob(own).mean() > standard.log_prob(own).mean()
    assert noise.log_prob(other).mean() < standard.log_prob(other).mean()


@every
def test_the_density_reaches_what_is_learned(name: str) -> None:
    entry = NOISE_POLICIES[name]
    policy = entry.make()
    parameters = list(policy.parameters())
    if not parameters:  # anchors are learned in closed form
        assert name == "anchors"
        return
    x_T = seeded_noise(LATENT, 5, "test", range(3))
    entry.of(policy).log_prob(x_T).sum().backward()
    for parameter in parameters:
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    assert any(parameter.grad.abs().max() > 0 for parameter in parameters)


@every
def test_what_is_drawn_is_what_it_says(name: str) -> None:
    noise = distribution(name)
    drawn = collect(noise, Toy(LATENT), "left", [2, 5], seed=1, stream="sample")
    torch.testing.assert_close(drawn.x_T, noise.sample(6, 1)[[2, 5]], atol=1e-6, rtol=0)
    assert torch.equal(drawn.log_prob, noise.log_prob(drawn.x_T))


@every
def test_a_file_keeps_it_bit_for_bit(name: str, tmp_path: Path) -> None:
    policy = NOISE_POLICIES[name].make()
    kept: Any = policy if isinstance(policy, NoiseGenerator) else policy()
    file = "generator.safetensors" if isinstance(policy, NoiseGenerator) else "noise.safetensors"
    kept.save(tmp_path / file)
    loaded = load_artifact(tmp_path)
    if isinstance(loaded, NoiseGenerator):
        loaded._states = sides
        assert type(loaded) is type(policy) and loaded.metadata == METADATA
        assert loaded.fingerprint() == kept.fingerprint()
        for prompt in (*PROMPTS, "further left"):
            assert torch.equal(loaded(prompt).sample(3, 1), kept(prompt).sample(3, 1))
    else:
        assert torch.equal(loaded.sample(3, 1), kept.sample(3, 1))


# The policy of K decisions


@pytest.fixture(scope="module")
def denoiser(tiny_pipeline_folder: Path) -> DenoiserPolicy:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    policy = DenoiserPolicy(Sampler(pipeline, num_steps=4, guidance_scale=2.0))
    with torch.no_grad():
        for number, parameter in enumerate(policy.learned()):
            parameter.add_(0.05 * seeded_noise(tuple(parameter.shape), number, "test", [0])[0])
    return policy


def test_a_denoisers_decisions(denoiser: DenoiserPolicy) -> None:
    x_t = seeded_noise((4, 8, 8), 0, "test", range(3))
    for step, std in enumerate(denoiser.stds):
        mean, own = denoiser(x_t, step, ["a dog", "a cat", "a dog"])
        assert mean.shape == x_t.shape and mean.dtype == torch.float32 and own == std > 0
        before, same = denoiser.pretrained(x_t, step, ["a dog", "a cat", "a dog"])
        assert same == own and not torch.allclose(before, mean)
    mean.sum().backward()
    assert all(parameter.grad is not None for parameter in denoiser.learned())


def test_a_denoisers_samples(denoiser: DenoiserPolicy) -> None:
    def drawn(groups: range, seed: int = 0):
        prompts = ["a dog" if group % 2 else "a cat" for group in groups]
        return collect_trajectories(denoiser, groups, prompts, range(1, 4), 2, seed=seed)

    whole = drawn(range(8))
    assert whole.x.shape == (4, 16, 4, 8, 8) and whole.log_prob.shape == (16, 3)
    assert whole.images.shape == (16, 3, 16, 16) and len(whole.prompts) == 16
    assert torch.equal(whole.x, drawn(range(8)).x) and torch.equal(whole.log_prob, drawn(range(8)).log_prob)
    assert not torch.allclose(whole.x, drawn(range(8), seed=1).x)
    for size in (1, 4):
        parts = [drawn(range(start, start + size)) for start in range(0, 8, size)]
        torch.testing.assert_close(torch.cat([p.x for p in parts], 1), whole.x, atol=1e-4, rtol=0)
        torch.testing.assert_close(torch.cat([p.log_prob for p in parts]), whole.log_prob, atol=1e-4, rtol=0)
