"""The learner of one prompt's noise: what it does at its first update, resuming, what it refuses."""

import pytest
import torch
from torch import Tensor

from diffalign.learners.find import FindLearner
from diffalign.loop import train
from diffalign.settings.fields import ConfigError, preset
from diffalign.settings.find import PRESETS, FindConfig
from tests.toys import Toy

LATENT = (2, 8, 8)


def learner(config: FindConfig) -> FindLearner:
    return FindLearner(Toy(LATENT), ["a dog"], config)


def reward(images: Tensor, prompts: list[str]) -> Tensor:
    return images.flatten(1).mean(1)


@pytest.mark.parametrize("name", PRESETS)
def test_the_first_ratio_is_exactly_one(name: str) -> None:
    round = next(train(learner(preset(PRESETS, name)), reward))
    assert round.update.diagnostics is not None
    assert round.update.diagnostics.max_ratio_error == 0.0


@pytest.mark.parametrize("name", PRESETS)
def test_queries_are_spent_exactly(name: str) -> None:
    own = learner(preset(PRESETS, name, {"queries": 47}))
    rounds = list(train(own, reward))
    assert own.queries == 47 == rounds[-1].queries
    assert sum(len(round.rewards) for round in rounds) == 47 == sum(own.environment.sizes)
    assert torch.equal(own.rewards, torch.cat([round.rewards for round in rounds]))
    assert len(rounds) == own.config.rounds == own.rounds == own.optimiser_steps


@pytest.mark.parametrize("name", PRESETS)
def test_a_resumed_run_ends_the_same(name: str) -> None:
    config = preset(PRESETS, name, {"queries": 60, "seed": 3})
    whole, first, second = learner(config), learner(config), learner(config)
    list(train(whole, reward))
    rounds = train(first, reward)
    next(rounds)
    next(rounds)
    second.load(*first.state())
    list(train(second, reward))
    learned, again = whole.policy.state_dict(), second.policy.state_dict()
    assert all(torch.equal(learned[name], again[name]) for name in learned)
    assert torch.equal(whole.rewards, second.rewards)


@pytest.mark.parametrize(
    ("components", "queries", "first"), [(60, 150, 60), (60, 20, 8), (60, 5, 2), (0, 150, 30)]
)
def test_the_first_update_grows_the_mixture(components: int, queries: int, first: int) -> None:
    config = FindConfig(components=components, queries=queries, batch=30)
    assert learner(config).ask().groups == range(first)
    assert [round.queries for round in train(learner(config), reward)][-1] == queries


def test_the_papers_reference_is_the_previous_policy() -> None:
    rounds = train(learner(preset(PRESETS, "paper", {"queries": 5})), reward)
    errors = [round.update.diagnostics.max_ratio_error for round in rounds]
    assert errors[0] == 0.0
    assert all(error > 0 for error in errors[1:])  # Adam has moved the policy away from it


def test_its_figures_say_how_far_the_noise_has_moved() -> None:
    own = learner(FindConfig(queries=40, batch=20, components=0))
    figures = [round.figures() for round in train(own, reward)][-1]
    noise = own.noise("a dog")
    assert figures["mean_norm"] == pytest.approx(float(noise.mean.norm())) and figures["mean_norm"] > 0
    assert figures["std_mean"] == pytest.approx(float(noise.std.mean()))
    assert figures["kl_to_standard"] == pytest.approx(float(noise.kl()))
    assert figures["effective_components"] == 1


def test_what_it_cannot_learn_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one prompt at a time is .*, not 2"):
        FindLearner(Toy(LATENT), ["a dog", "a cat"], FindConfig())
    with pytest.raises(ConfigError, match="no height and width"):
        FindLearner(Toy((8,)), ["a dog"], FindConfig(basis="dct3"))


def test_a_reward_that_says_nothing_changes_nothing() -> None:
    own = learner(FindConfig(queries=60))
    list(train(own, lambda images, prompts: torch.full((len(images),), 25.3)))  # whose mean is rounded
    noise = own.noise("a dog")
    assert noise.weights is not None and torch.allclose(noise.weights, noise.weights.new_full((24,), 1 / 24))


def test_samples_are_remembered_only_where_updates_read_them() -> None:
    default, paper = learner(FindConfig(queries=20)), learner(preset(PRESETS, "paper", {"queries": 20}))
    for own in (default, paper):
        list(train(own, reward))
    assert len(default.x_T) == len(default.means) == 0 and len(paper.x_T) == len(paper.means) == 20
