"""The learner of anchors: what it must be given, and what it counts."""

import pytest
import torch

from diffalign.learners.anchors import AnchorLearner
from diffalign.loop import train
from diffalign.policies.anchor_generator import AnchorGenerator, AnchorShape
from diffalign.settings.anchors import AnchorConfig
from diffalign.settings.fields import ConfigError
from tests.toys import WIDTH, Toy, half, sides

LATENT = (1, 4, 4)


def learner(config: AnchorConfig, *prompts: str) -> AnchorLearner:
    shape = AnchorShape(LATENT, WIDTH, len(prompts), config.components, 0.9, config.effective)
    return AnchorLearner(Toy(LATENT), prompts, config, AnchorGenerator(shape, sides))


def test_a_prompt_needs_two_samples_to_compare() -> None:
    once = AnchorConfig(rounds=1, prompts_per_round=3, samples_per_prompt=1)
    with pytest.raises(ConfigError, match="3 samples of 3 prompts leave no prompt with two"):
        learner(once, "left", "right", "further left")
    learner(once, "left", "right")


def test_each_reward_is_counted_with_its_prompt_and_anchor() -> None:
    config = AnchorConfig(rounds=2, prompts_per_round=2, samples_per_prompt=5, components=6, effective=2)
    own = learner(config, "left", "right")
    rounds = list(train(own, half))
    assert own.counts.sum() == own.queries == 20 and (own.counts.sum(1) == 10).all()
    rewards = torch.cat([round.rewards for round in rounds]).double()
    prompts = [prompt for round in rounds for prompt in round.update.prompts]
    x_T = torch.cat([round.images for round in rounds])  # pictures are their noise
    for row, prompt in enumerate(own.prompts):
        mine = torch.tensor([text == prompt for text in prompts])
        for anchor in range(6):
            there = mine & (own.generator.nearest(x_T) == anchor)
            torch.testing.assert_close(own.sums[row, anchor], rewards[there].sum())
            torch.testing.assert_close(own.squares[row, anchor], rewards[there].square().sum())
