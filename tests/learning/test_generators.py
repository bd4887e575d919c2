"""A generator learns one noise for each prompt, and one for prompts that it never saw."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffalign.learners.amortised import AmortisedLearner
from diffalign.learners.anchors import AnchorLearner
from diffalign.learners.distil import distil
from diffalign.learners.noise_ppo import NoisePPOLearner, log_ratio
from diffalign.loop import train
from diffalign.policies.anchor_generator import AnchorGenerator, AnchorShape
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.anchors import AnchorConfig
from diffalign.settings.noise_ppo import NoisePPOConfig
from tests.toys import WIDTH, Toy, half, sides

LATENT = (1, 4, 4)
PROMPTS = ["left", "right"]
SHORT = NoisePPOConfig(
    rounds=40,
    prompts_per_round=2,
    samples_per_prompt=16,
    minibatch=2,
    learning_rate=3e-3,
    kl_weight=0.0,
)
ANCHORS = AnchorConfig(
    rounds=10, prompts_per_round=2, samples_per_prompt=16, components=16, effective=2, explore=0.5
)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T.repeat(1, 3, 1, 1)


def generator_of(config: NoisePPOConfig) -> GaussianGenerator:
    shape = GaussianShape(LATENT, WIDTH, config.basis, config.std, width=16, layers=1, heads=2)
    return GaussianGenerator(shape, sides, seed=config.seed)


def learner(config: NoisePPOConfig | AnchorConfig) -> AmortisedLearner:
    environment = Toy(LATENT, pictures)
    if isinstance(config, NoisePPOConfig):
        return NoisePPOLearner(environment, PROMPTS, config, generator_of(config))
    shape = AnchorShape(LATENT, WIDTH, 2, config.components, 0.9, config.effective)
    return AnchorLearner(environment, PROMPTS, config, AnchorGenerator(shape, sides, seed=config.seed))


def gain(noise: NoiseDistribution, prompt: str) -> float:
    drawn = noise.sample(256, 1, stream="test")
    plain = NoiseDistribution.standard(LATENT).sample(256, 1, stream="test")
    return float((half(drawn, [prompt] * 256) - half(plain, [prompt] * 256)).mean())


def test_anchors_are_valued_by_prompt() -> None:
    own = learner(ANCHORS)
    first = own.exploring("left")
    assert first.weights is not None and torch.allclose(first.weights, torch.full((16,), 1 / 16))
    rounds = list(train(own, half))
    assert rounds[-1].queries == own.queries == 10 * 32
    assert (
        rounds[-1].update.loss < rounds[0].update.loss < 0
    )  # what the next samples should earn, with the sign turned
    assert rounds[-1].rewards.mean() > rounds[0].rewards.mean()
    for prompt in [*PROMPTS, "further left"]:
        assert gain(own.noise(prompt), prompt) > gain(own.exploring(prompt), prompt) > 0.3
        assert abs(own.noise(prompt).effective_components() - 2) < 1e-3
        assert abs(own.exploring(prompt).effective_components() - 8) < 1e-2


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_unit_of_the_reward_does_not_matter(scale: float) -> None:
    def scaled(images: Tensor, prompts: list[str]) -> Tensor:
        return scale * half(images, prompts) + 3 * scale

    one, other = learner(ANCHORS), learner(ANCHORS)
    list(train(one, half))
    list(train(other, scaled))
    weights = [own.generator("left").weights for own in (one, other)]
    assert weights[0] is not None and weights[1] is not None
    torch.testing.assert_close(weights[0], weights[1], atol=1e-2, rtol=0)


def test_a_reward_that_says_nothing_changes_nothing() -> None:
    own = learner(ANCHORS)
    list(train(own, lambda images, prompts: torch.ones(len(images))))
    noise = own.generator("left")
    assert noise.weights is not None and torch.allclose(noise.weights, torch.full((16,), 1 / 16))


@pytest.mark.parametrize("baseline", ["leave-one-out", "value", "running"])
@pytest.mark.parametrize("std", ["preserving", "learned"])
def test_each_prompt_gets_what_it_asks_for(baseline: str, std: str) -> None:
    own = learner(replace(SHORT, baseline=baseline, std=std))
    rounds = list(train(own, half))
    assert rounds[-1].queries == own.queries == 40 * 32
    assert rounds[0].update.diagnostics.max_ratio_error < 10  # several steps from one round's samples
    for prompt in [*PROMPTS, "further left"]:
        assert gain(own.noise(prompt), prompt) > 0.5


@pytest.mark.parametrize("side", [8, 16, 64])
def test_a_clip_range_means_the_same_whatever_the_size_of_a_latent(side: int) -> None:
    """Where each coefficient moves by 0.1 standard deviations, log-ratios are of mean 0 and spread 0.1."""
    before = NoiseDistribution.standard((4, side, side))
    generator = torch.Generator().manual_seed(0)
    moved = replace(before, mean=0.1 * torch.randn(4, side, side, generator=generator))
    found = log_ratio(moved, before, before.sample(2000, 0))[:, 0]
    assert abs(float(found.mean())) < 0.01
    assert float(found.std()) == pytest.approx(0.1, rel=0.1)


def test_an_update_is_bounded_whatever_the_size_of_a_latent() -> None:
    config = replace(SHORT, rounds=2, minibatch=1, epochs=4, learning_rate=1e-3)
    for side in (4, 16, 64):
        latent = (4, side, side)
        generator = GaussianGenerator(GaussianShape(latent, WIDTH), sides)
        environment = Toy(latent, lambda x_T, prompt: x_T[:, :3])
        for round in train(NoisePPOLearner(environment, PROMPTS, config, generator), half):
            found = round.update.diagnostics
            assert found is not None and 0.05 < found.clip_fraction < 0.6 and found.max_ratio_error < 2


def test_the_divergence_is_held_back_by_its_weight() -> None:
    free, held = learner(SHORT), learner(replace(SHORT, kl_weight=0.3))
    ends = [list(train(own, half))[-1].update.figures["divergence"] for own in (free, held)]
    assert ends[1] < 0.5 * ends[0]


def test_a_generator_is_distilled_from_what_was_found() -> None:
    found = {
        prompt: NoiseDistribution(sign * torch.full(LATENT, 0.6), torch.full(LATENT, 0.8), LATENT)
        for prompt, sign in (("left", 1), ("right", -1))
    }
    own = generator_of(SHORT)
    losses = list(distil(own, found, steps=200, learning_rate=3e-3))
    assert losses[-1] < losses[0]
    for prompt, noise in found.items():
        assert (own(prompt).mean - noise.mean).abs().mean() < 0.15
