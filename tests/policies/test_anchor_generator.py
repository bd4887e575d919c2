"""Anchors that prompts share: what each is worth to a prompt, and what is drawn from them."""

import math
from pathlib import Path

import torch

from diffalign import NoiseGenerator
from diffalign.policies.anchor_generator import AnchorGenerator, AnchorShape


def states(prompt: str) -> torch.Tensor:
    return torch.randn(len(prompt), 16, generator=torch.Generator().manual_seed(len(prompt)))


SHAPE = AnchorShape((4, 8, 8), 16, prompts=2, components=8, effective=2.0)


def valued() -> AnchorGenerator:
    """The first prompt finds the first anchor good, the second the last."""
    generator = AnchorGenerator(SHAPE, states, {"model": "m"})
    generator.learn_from(["a dog", "three cats"])
    generator.coefficients[0, 0] = generator.coefficients[1, 7] = 1.0
    return generator


def test_the_kernel_is_that_of_the_docs() -> None:
    generator = AnchorGenerator(SHAPE, states)
    generator.features.copy_(torch.eye(2, 16))
    near, far = generator.kernel(torch.eye(1, 16))[0].tolist()
    assert abs(near - 1) < 1e-6
    assert abs(far - (0.01 + 0.99 * (1 + 2 / (4 * 0.2**2)) ** -2)) < 1e-6


def test_anchors_start_alike() -> None:
    generator = AnchorGenerator(SHAPE, states)
    generator.learn_from(["a dog", "three cats"])
    noise = generator("a bird")
    assert noise.weights is not None and (noise.weights == 1 / 8).all()
    assert generator.divergence(noise).abs() < 1e-6


def test_a_prompt_prefers_the_anchors_of_prompts_like_it(tmp_path: Path) -> None:
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
    assert isinstance(loaded, AnchorGenerator)
    assert torch.equal(loaded.sample(["a dog", "one cat"], 3), generator.sample(["a dog", "one cat"], 3))
