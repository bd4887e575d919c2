"""A Gaussian a prompt: how it starts, what its weights change, its file."""

from pathlib import Path

import pytest
import torch

from diffalign import NoiseGenerator
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.noise import NoiseDistribution

SHAPES = [
    GaussianShape((4, 8, 8), 16, std="learned"),
    GaussianShape((4, 8, 8), 16, basis="dct3", std="preserving"),
    GaussianShape((4, 3, 8, 8), 16, patch=4, std="learned"),
]


def states(prompt: str) -> torch.Tensor:
    return torch.randn(len(prompt), 16, generator=torch.Generator().manual_seed(len(prompt)))


def moved(shape: GaussianShape) -> GaussianGenerator:
    generator = GaussianGenerator(shape, states, {"model": "m", "reward": "r"})
    torch.manual_seed(0)
    torch.nn.init.normal_(generator.head.weight, std=0.3)
    return generator


@pytest.mark.parametrize("shape", SHAPES)
def test_it_starts_as_standard_noise(shape: GaussianShape) -> None:
    noise = GaussianGenerator(shape, states)("a dog")
    assert (noise.mean == 0).all() and (noise.std == 1).all()
    standard = NoiseDistribution.standard(shape.latent)
    torch.testing.assert_close(noise.sample(3, 1), standard.sample(3, 1))


@pytest.mark.parametrize("shape", SHAPES)
def test_each_prompt_has_its_noise(shape: GaussianShape) -> None:
    generator = moved(shape)
    dog, cat = generator("a dog"), generator("one cat")
    assert not torch.allclose(dog.mean, cat.mean)
    if shape.std == "preserving":
        torch.testing.assert_close(dog.mean.square() + dog.std.square(), torch.ones_like(dog.mean))
    loss = -dog.log_prob(torch.ones(2, *shape.latent)).mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.parameters())


def test_patches_lie_where_their_queries_do() -> None:
    generator = GaussianGenerator(GaussianShape((1, 4, 4), 16, std="learned", patch=2), states)
    with torch.no_grad():
        generator.head.bias.copy_(torch.arange(8.0))  # mean then log std: channel, row, column of a patch
    mean = generator("a dog").mean
    assert mean[0, :2, :2].tolist() == [[0, 1], [2, 3]]
    assert torch.equal(mean[0, :2, :2], mean[0, 2:, 2:])


@pytest.mark.parametrize("shape", SHAPES)
def test_it_samples_alike_when_loaded(shape: GaussianShape, tmp_path: Path) -> None:
    generator = moved(shape)
    generator.save(tmp_path / "generator.safetensors")
    loaded = NoiseGenerator.load(tmp_path)
    loaded._states = states
    prompts = ["a dog", "one cat", "a dog"]
    own, other = generator.sample(prompts, 7), loaded.sample(prompts, 7)
    assert torch.equal(own, other) and own.shape == (3, *shape.latent)
    assert not torch.equal(own[0], own[2])
    assert torch.equal(own[:1], generator.sample(prompts[:1], 7))
    assert loaded.metadata == {"model": "m", "reward": "r"}
    assert loaded.fingerprint() == generator.fingerprint() != GaussianGenerator(shape, states).fingerprint()


def test_patches_must_tile_the_latent() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        GaussianGenerator(GaussianShape((4, 8, 8), 16, patch=3), states)
