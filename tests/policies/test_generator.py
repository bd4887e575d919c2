from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffalign import NoiseGenerator, load_pipeline
from diffalign.diffusion.conditions import prompt_states
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.noise import ArtifactError, NoiseDistribution
from diffalign.policies.place_generator import PlaceGenerator, PlaceShape

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


def test_what_is_no_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no noise generator"):
        NoiseGenerator.load(tmp_path)
    file = tmp_path / "generator.safetensors"
    NoiseDistribution.standard((4, 8, 8)).save(file)
    with pytest.raises(ArtifactError, match="not a noise generator"):
        NoiseGenerator.load(file)
    moved(SHAPES[0]).save(file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match="corrupt"):
        NoiseGenerator.load(file)
    save_file(
        {"x": torch.zeros(1)}, file, {"format": "diffalign.generator/2", "kind": "gaussian", "shape": "{}"}
    )
    with pytest.raises(ArtifactError, match="corrupt"):
        NoiseGenerator.load(file)


def test_patches_must_tile_the_latent() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        GaussianGenerator(GaussianShape((4, 8, 8), 16, patch=3), states)


def test_prompts_are_read_by_the_pipelines_text_encoder(tiny_pipeline_folder: Path) -> None:
    pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
    dog, cat = prompt_states(pipeline, "a dog"), prompt_states(pipeline, "a cat")
    assert dog.ndim == 2 and dog.shape == cat.shape and not torch.equal(dog, cat)
    assert dog.shape[1] == pipeline.text_encoder.config.hidden_size


PLACES = PlaceShape((4, 8, 8), 16, prompts=2, components=8, effective=2.0)


def valued() -> PlaceGenerator:
    """The first prompt finds the first place good, the second the last."""
    generator = PlaceGenerator(PLACES, states, {"model": "m"})
    generator.learn_from(["a dog", "three cats"])
    generator.coefficients[0, 0] = generator.coefficients[1, 7] = 1.0
    return generator


def test_the_kernel_is_that_of_the_docs() -> None:
    generator = PlaceGenerator(PLACES, states)
    generator.features.copy_(torch.eye(2, 16))
    near, far = generator.kernel(torch.eye(1, 16))[0].tolist()
    assert abs(near - 1) < 1e-6
    assert abs(far - (0.01 + 0.99 * (1 + 2 / (4 * 0.2**2)) ** -2)) < 1e-6


def test_places_start_alike() -> None:
    generator = PlaceGenerator(PLACES, states)
    generator.learn_from(["a dog", "three cats"])
    noise = generator("a bird")
    assert noise.weights is not None and (noise.weights == 1 / 8).all()
    assert generator.divergence(noise).abs() < 1e-6


def test_a_prompt_prefers_the_places_of_prompts_like_it(tmp_path: Path) -> None:
    generator = valued()
    dog, cats = generator("a dog"), generator("three cats")
    assert dog.weights is not None and cats.weights is not None
    assert dog.weights.argmax() == 0 and cats.weights.argmax() == 7
    for noise in (dog, cats):
        assert abs(noise.effective_components() - 2) < 1e-3
        assert abs(float(generator.divergence(noise)) - math.log(8 / 2)) < 1e-3
    assert abs(generator("a dog", 5).effective_components() - 5) < 1e-3
    starts = [generator.start("a dog", n).effective_components() for n in (2, 6, 60)]
    assert [round(number, 2) for number in starts] == [2, 3, 4]
    far = generator.start("a prompt that is like none of them", 60)
    alike = float(generator.kernel(generator.feature("a prompt that is like none of them")[None]).max())
    assert far.weights is not None and alike < 0.9
    assert abs(float(far.weights[-1]) - (1 - alike)) < 1e-6 and (far.mean[-1] == 0).all()
    x_T = dog.sample(16, 0)
    assert torch.equal(generator.nearest(x_T), dog.components(0, "sample", range(16)))

    generator.save(tmp_path / "generator.safetensors")
    loaded = NoiseGenerator.load(tmp_path)
    loaded._states = states
    assert isinstance(loaded, PlaceGenerator)
    assert torch.equal(loaded.sample(["a dog", "one cat"], 3), generator.sample(["a dog", "one cat"], 3))
