"""The learner: what it does at its first step, resuming, failing rewards, refused settings."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.methods.find import PRESETS, preset
from diffalign.rewards import RewardError
from diffalign.training import ConfigError, NoiseConfig, NoiseLearner, train

LATENT = (2, 8, 8)


def environment(x_T: Tensor, prompt: str) -> Tensor:
    return x_T


def reward(images: Tensor, prompts: list[str]) -> Tensor:
    return images.flatten(1).mean(1)


@pytest.mark.parametrize("name", PRESETS)
def test_the_first_ratio_is_exactly_one(name: str) -> None:
    learner = NoiseLearner(LATENT, preset(name))
    step = next(train(learner, environment, "", reward))
    assert step.diagnostics.max_ratio_error == 0.0


@pytest.mark.parametrize("name", PRESETS)
def test_queries_are_spent_exactly(name: str) -> None:
    learner = NoiseLearner(LATENT, preset(name, queries=47))
    steps = list(train(learner, environment, "", reward))
    assert learner.queries == 47 == steps[-1].queries
    assert sum(len(step.rewards) for step in steps) == 47
    assert steps[-1].best == max(float(step.rewards.max()) for step in steps)


@pytest.mark.parametrize("name", PRESETS)
def test_a_resumed_run_ends_the_same(name: str) -> None:
    config = preset(name, queries=60, seed=3)
    whole = NoiseLearner(LATENT, config)
    list(train(whole, environment, "", reward))
    first = NoiseLearner(LATENT, config)
    steps = train(first, environment, "", reward)
    next(steps)
    next(steps)
    tensors, metadata = first.state()
    second = NoiseLearner(LATENT, config)
    second.load({name: tensor.clone() for name, tensor in tensors.items()}, metadata)
    list(train(second, environment, "", reward))
    learned, again = whole.policy.state_dict(), second.policy.state_dict()
    assert all(torch.equal(learned[name], again[name]) for name in learned)
    assert torch.equal(whole.rewards, second.rewards)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda images, prompts: torch.full((len(images),), torch.nan), "returned nan for picture 0"),
        (lambda images, prompts: torch.zeros(len(images), 1), "shape"),
        (lambda images, prompts: 1 / 0, "raised ZeroDivisionError"),
        (lambda images, prompts: "good", "not B numbers"),
    ],
)
def test_a_failing_reward_leaves_the_learner_as_it_was(broken: Callable[..., Any], message: str) -> None:
    learner = NoiseLearner(LATENT, preset("default", queries=60))
    next(train(learner, environment, "", reward))
    before = {name: value.clone() for name, value in learner.policy.state_dict().items()}
    with pytest.raises(RewardError, match=message):
        next(train(learner, environment, "", broken))
    assert all(torch.equal(before[name], value) for name, value in learner.policy.state_dict().items())
    assert len(list(train(learner, environment, "", reward))) == learner.steps - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": 0}, "queries must be positive"),
        ({"advantage": "drmc"}, "advantage must be one of"),
        ({"clip_range": 1.0}, "clip_range"),
        ({"batch": 1}, "batch must be above 1"),
        ({"optimiser": "sgd"}, "adamw, natural"),
        ({"components": 1}, "0 .one Gaussian. or at least 2"),
        ({"queries": 4}, "at least 5 queries"),
        ({"antithetic": True}, "components 0 learns one Gaussian"),
        ({"std": "learned"}, "components 0 learns one Gaussian"),
        ({"advantage": "drcm"}, "components must be 0"),
        ({"correlation": 1.0}, "between 0 and 1"),
    ],
)
def test_settings_out_of_range_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NoiseConfig(**change)


@pytest.mark.parametrize(
    ("components", "queries", "first"), [(60, 150, 60), (60, 20, 8), (60, 5, 2), (0, 150, 30)]
)
def test_the_first_update_grows_the_mixture(components: int, queries: int, first: int) -> None:
    config = NoiseConfig(components=components, queries=queries, batch=30)
    assert NoiseLearner(LATENT, config).ask() == range(first)
    learner = NoiseLearner(LATENT, config)
    assert [step.queries for step in train(learner, environment, "", reward)][-1] == queries


def test_unknown_presets_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        preset("papr")


def test_the_papers_reference_is_the_previous_policy() -> None:
    learner = NoiseLearner(LATENT, preset("paper", queries=5))
    errors = [step.diagnostics.max_ratio_error for step in train(learner, environment, "", reward)]
    assert errors[0] == 0.0
    assert all(error > 0 for error in errors[1:])  # Adam has moved the policy away from it
