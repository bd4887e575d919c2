"""A generator learns one noise for each prompt, and one for prompts that it never saw."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.noise import NoiseDistribution
from diffalign.policies.place_generator import PlaceGenerator, PlaceShape
from diffalign.training import ConfigError, GeneratorConfig, GeneratorLearner, train_generator
from diffalign.training.distilling import distil
from diffalign.training.gaussian_learner import GaussianLearner
from diffalign.training.place_learner import PlaceLearner

LATENT, WIDTH = (1, 4, 4), 8
PROMPTS = ["left", "right"]
SHORT = GeneratorConfig(
    rounds=40,
    prompts_per_round=2,
    samples_per_prompt=16,
    components=0,
    minibatch=2,
    learning_rate=3e-3,
    kl_weight=0.0,
)


def states(prompt: str) -> Tensor:
    """One token that says where, and one that says nothing."""
    row = torch.zeros(2, WIDTH)
    row[0, 0 if "left" in prompt else 1] = 3.0
    return row


def half(images: Tensor, prompts: list[str]) -> Tensor:
    """How bright the half is that the prompt names, less the other."""
    left, right = images[..., :2].flatten(1).mean(1), images[..., 2:].flatten(1).mean(1)
    signs = torch.tensor([1.0 if "left" in prompt else -1.0 for prompt in prompts])
    return signs * (left - right)


PLACES = GeneratorConfig(
    rounds=10, prompts_per_round=2, samples_per_prompt=16, components=16, effective=2, explore=0.5
)


def learner(config: GeneratorConfig) -> GeneratorLearner:
    if config.components:
        places = PlaceShape(LATENT, WIDTH, 2, config.components, 0.9, config.effective)
        return PlaceLearner(PlaceGenerator(places, states, seed=config.seed), PROMPTS, config)
    shape = GaussianShape(LATENT, WIDTH, config.basis, config.std, width=16, layers=1, heads=2)
    return GaussianLearner(GaussianGenerator(shape, states, seed=config.seed), PROMPTS, config)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T.repeat(1, 3, 1, 1)


def gain(own: GeneratorLearner, prompt: str) -> float:
    drawn = own.distribution(prompt).sample(256, 1, stream="test")
    plain = NoiseDistribution.standard(LATENT).sample(256, 1, stream="test")
    return float((half(drawn, [prompt] * 256) - half(plain, [prompt] * 256)).mean())


def test_places_are_valued_by_prompt() -> None:
    own = learner(PLACES)
    first = own.distribution("left")
    assert first.weights is not None and torch.allclose(first.weights, torch.full((16,), 1 / 16))
    rounds = list(train_generator(own, pictures, half))
    assert rounds[-1].queries == own.queries == 10 * 32
    assert rounds[-1].loss < rounds[0].loss < 0  # what the next samples should earn, with the sign turned
    assert rounds[-1].rewards.mean() > rounds[0].rewards.mean()
    for prompt in [*PROMPTS, "further left"]:
        assert gain(own, prompt) > 0.3
        assert abs(own.generator(prompt).effective_components() - 2) < 1e-3
        assert abs(own.distribution(prompt).effective_components() - 8) < 1e-2


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_unit_of_the_reward_does_not_matter(scale: float) -> None:
    def scaled(images: Tensor, prompts: list[str]) -> Tensor:
        return scale * half(images, prompts) + 3 * scale

    one, other = learner(PLACES), learner(PLACES)
    list(train_generator(one, pictures, half))
    list(train_generator(other, pictures, scaled))
    weights = [own.generator("left").weights for own in (one, other)]
    assert weights[0] is not None and weights[1] is not None
    torch.testing.assert_close(weights[0], weights[1], atol=1e-2, rtol=0)


def test_a_reward_that_says_nothing_changes_nothing() -> None:
    own = learner(PLACES)
    list(train_generator(own, pictures, lambda images, prompts: torch.ones(len(images))))
    noise = own.generator("left")
    assert noise.weights is not None and torch.allclose(noise.weights, torch.full((16,), 1 / 16))


@pytest.mark.parametrize("baseline", ["leave-one-out", "value", "running"])
@pytest.mark.parametrize("std", ["preserving", "learned"])
def test_each_prompt_gets_what_it_asks_for(baseline: str, std: str) -> None:
    own = learner(replace(SHORT, baseline=baseline, std=std))
    rounds = list(train_generator(own, pictures, half))
    assert rounds[-1].queries == own.queries == 40 * 32
    assert rounds[0].diagnostics.max_ratio_error < 10  # several steps from one round's samples
    for prompt in [*PROMPTS, "further left"]:
        assert gain(own, prompt) > 0.5


@pytest.mark.parametrize(
    "config", [replace(SHORT, rounds=4, baseline="value"), replace(PLACES, rounds=4)], ids=["ppo", "places"]
)
def test_a_resumed_run_ends_alike(config: GeneratorConfig) -> None:
    whole, first, rest = learner(config), learner(config), learner(config)
    rounds = list(train_generator(whole, pictures, half))
    next(train_generator(first, pictures, half))
    rest.load(*first.state())
    resumed = list(train_generator(rest, pictures, half))
    assert torch.equal(rounds[-1].rewards, resumed[-1].rewards)
    assert whole.generator.fingerprint() == rest.generator.fingerprint()
    with pytest.raises(ConfigError, match="another learner"):
        learner(replace(config, seed=5)).load(*first.state())


def test_the_divergence_is_held_back_by_its_weight() -> None:
    free, held = learner(SHORT), learner(replace(SHORT, kl_weight=0.3))
    ends = [list(train_generator(own, pictures, half))[-1].divergence for own in (free, held)]
    assert ends[1] < 0.5 * ends[0]


def test_a_generator_is_distilled_from_what_was_found() -> None:
    found = {
        prompt: NoiseDistribution(sign * torch.full(LATENT, 0.6), torch.full(LATENT, 0.8), LATENT)
        for prompt, sign in (("left", 1), ("right", -1))
    }
    own = learner(SHORT).generator
    assert isinstance(own, GaussianGenerator)
    losses = list(distil(own, found, steps=200, learning_rate=3e-3))
    assert losses[-1] < losses[0]
    for prompt, noise in found.items():
        assert (own(prompt).mean - noise.mean).abs().mean() < 0.15
    with pytest.raises(ConfigError, match="no learned noise"):
        next(distil(own, {}))
    with pytest.raises(ConfigError, match="has shape"):
        next(distil(own, {"left": NoiseDistribution.standard((2, 4, 4))}))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"baseline": "mean"}, "baseline must be one of"),
        ({"effective": 5, "components": 4}, "effective must be at least 1 and below components"),
        ({"explore": 0.01}, "explore is a share"),
        ({"effective": 5, "components": 0}, "effective: of a mixture"),
        ({"samples_per_prompt": 1, "components": 0, "baseline": "leave-one-out"}, "must be above 1"),
        ({"clip_range": 0.1, "epochs": 3}, "epochs, clip_range: only one Gaussian"),
        ({"effective": 0.5}, "effective must be at least 1"),
        ({"basis": "fourier", "components": 0}, "basis must be identity"),
        ({"width": 10, "components": 0}, "does not split into 4 heads"),
        ({"kl_weight": -1, "components": 0}, "kl_weight"),
        ({"clip_range": 0, "components": 0}, "clip_range"),
        ({"rounds": 0}, "rounds"),
    ],
)
def test_settings_that_make_no_sense_are_named(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(GeneratorConfig(), **change)
