"""A plan's reward where none is named."""

import pytest

from diffalign.settings.methods import METHODS
from diffalign.settings.plan import Plan, own_reward
from diffalign.settings.sampling import Sampling


@pytest.mark.parametrize(
    ("model", "reward"),
    [("world", "world-clip"), ("world-flow", "world-clip"), ("world-video", "world-scene")],
)
def test_without_a_reward_the_worlds_own_reads_what_the_model_makes(model: str, reward: str) -> None:
    row = METHODS["find"]
    plan = Plan("find", ("a cat",), row.config(), row.evaluation(), Sampling(model))
    assert plan.reward == own_reward(model) == reward
    assert "--reward" not in plan.command()
    mapping = plan.mapping()
    assert mapping["reward"] == reward and Plan.of(mapping) == plan
    del mapping["reward"]
    assert Plan.of(mapping) == plan


def test_a_reward_that_is_named_stays() -> None:
    row = METHODS["find"]
    plan = Plan("find", ("a cat",), row.config(), row.evaluation(), Sampling("world-video"), "world-clip")
    assert plan.reward == "world-clip" and "--reward world-clip" in plan.command()
    assert Plan.of(plan.mapping()) == plan
