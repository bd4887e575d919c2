"""The loop: what a round says, and that a reward which fails costs nothing but its round."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign.diffusion import PipelineError
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.contract import Update
from diffalign.learners.find import FindLearner
from diffalign.loop import train
from diffalign.rewards import RewardError, score
from diffalign.rollout import Rollout
from diffalign.settings.find import FindConfig
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 8, 8)


def learner() -> FindLearner:
    return FindLearner(Toy(LATENT, batch_size=10), ["a dog"], FindConfig(queries=60))


def reward(images: Tensor, prompts: list[str]) -> Tensor:
    return images.flatten(1).mean(1)


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
    own = learner()
    next(train(own, reward))
    before = {name: value.clone() for name, value in own.policy.state_dict().items()}
    with pytest.raises(RewardError, match=message):
        next(train(own, broken))
    assert all(torch.equal(before[name], value) for name, value in own.policy.state_dict().items())
    assert len(list(train(own, reward))) == own.rounds - 1


def test_a_state_that_is_no_number_ends_with_its_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """No consumer of rounds sees it, and so none saves it."""
    own = learner()
    rounds, tell = train(own, reward), own.tell
    next(rounds)

    def overflowing(rollout: Rollout, rewards: Tensor) -> Update:
        update = tell(rollout, rewards)
        own.rewards[0] = torch.inf
        return update

    monkeypatch.setattr(own, "tell", overflowing)
    with pytest.raises(PipelineError, match=r"1 of \d+ parts of the state after round 2 \(rewards\) hold"):
        next(rounds)


def test_a_reward_that_is_constant_is_said() -> None:
    """As float32 rounds it."""
    constant = torch.tensor([0.1, 0.1]).nextafter(torch.tensor([1.0, 0.0]))
    rounds = list(train(learner(), lambda images, prompts: constant[torch.arange(len(images)) % 2]))
    assert {round.warning for round in rounds} == {
        f"round {i}: all rewards are 0.1, so that they teach nothing" for i in range(1, 5)
    }
    assert all(round.update.figures["effective_components"] > 23 for round in rounds)
    assert {round.warning for round in train(learner(), reward)} == {None}


def test_a_round_says_what_it_did() -> None:
    own, heard = learner(), list[int]()
    rounds = list(train(own, reward, on_batch=heard.append))
    assert [round.round for round in rounds] == [1, 2, 3, 4]
    assert [round.queries for round in rounds] == [24, 39, 54, 60]
    assert [round.optimiser_steps for round in rounds] == [1, 2, 3, 4]
    assert heard == own.environment.sizes == [10, 10, 4, 10, 5, 10, 5, 6]
    for round in rounds:
        figures = round.figures()
        assert json.loads(json.dumps(figures)) == figures  # a line of metrics.jsonl
        assert figures["rewards"] == round.rewards.tolist() == reward(round.images, []).tolist()
        assert figures["reward_mean"] == float(round.rewards.mean())
        assert figures["reward_best"] == float(round.rewards.max())
        assert figures["denoiser_forwards"] == figures["selected"] == len(round.images)
        assert figures.keys() > {"loss", "approx_kl", "clip_fraction", "max_ratio_error", "mean_norm"}
        assert 0 <= round.sampling_seconds <= round.seconds


def test_where_nothing_is_minimised_there_is_no_loss() -> None:
    search = BestOfN(Toy(LATENT, batch_size=4), ["a dog"], SearchConfig(queries=6, keep=2))
    figures = [round.figures() for round in train(search, reward)]
    assert [row["loss"] for row in figures] == [None, None]
    assert all("approx_kl" not in row and row["optimiser_steps"] == row["selected"] == 0 for row in figures)


def test_who_owns_the_loop_gets_the_same() -> None:
    own, other = learner(), learner()
    list(train(own, reward))
    while not other.done:
        parts = list(other.sample(other.ask()))
        rewards = [score(reward, part.images, part.prompts) for part in parts]
        other.tell(Rollout.cat(parts), torch.cat(rewards))
    assert torch.equal(own.rewards, other.rewards)
    assert torch.equal(own.result().sample(3, 0), other.result().sample(3, 0))


def test_nothing_is_left_to_do_when_the_queries_are_spent() -> None:
    own = learner()
    list(train(own, reward))
    assert own.done and list(train(own, reward)) == []
