"""What every learner promises: the same result however its work is cut, stopped or begun again."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign import load_artifact
from diffalign.files import GENERATOR, LORA, NOISE, NOISES, load_tensors, save_tensors
from diffalign.learners.contract import Learner
from diffalign.loop import Round, train
from diffalign.policies.generator import NoiseGenerator
from diffalign.rewards import RewardError
from diffalign.rollout import Rollout
from diffalign.run.checkpoint import snapshot
from diffalign.settings.fields import ConfigError
from diffalign.settings.methods import METHODS
from tests.toys import half, sides

from .tables import LATENT, LEARNERS, METADATA, make_learner

every = pytest.mark.parametrize("name", LEARNERS)


def run(learner: Learner) -> list[Round]:
    return list(train(learner, half))


def outcome(learner: Learner) -> Tensor:
    """What was learned, as numbers: the noise of fresh pictures or of kept ones, or weights."""
    if (kept := learner.kept()) is not None:
        return kept.x_T
    if hasattr(learner, "policy") and hasattr(learner.policy, "learned"):
        return torch.cat([p.detach().flatten() for p in learner.policy.learned()])
    return torch.cat([learner.noise(prompt).sample(4, 0) for prompt in learner.prompts])


def pictures(rounds: Sequence[Round]) -> Tensor:
    return torch.cat([round.images for round in rounds])


def assert_same_state(one: Learner, other: Learner) -> None:
    (tensors, strings), (others, again) = one.state(), other.state()
    assert tensors.keys() == others.keys() and strings == again
    for key, value in tensors.items():
        assert torch.equal(value, others[key]), key


def batches_of(learner: Learner) -> list[Rollout]:
    return list(learner.sample(learner.ask()))


@every
def test_shapes(name: str) -> None:
    learner, asked = make_learner(name, batch_size=4), set[int]()
    while not learner.done:
        request, parts = learner.ask(), batches_of(learner)
        assert len(request.groups) == len(request.prompts) and set(request.prompts) <= set(learner.prompts)
        for part in parts:
            size, decisions = len(part.indices), len(part.interval)
            assert part.interval == request.interval
            assert part.log_prob.shape == (size, decisions) and part.log_prob.isfinite().all()
            assert part.x.shape == (decisions + (decisions > 1), size, *LATENT)
            assert part.x.dtype == part.log_prob.dtype == torch.float32
            assert len(part.images) == len(part.prompts) == size
            assert not part.x.requires_grad and not part.images.requires_grad
            assert not asked & set(part.indices)  # no noise is drawn twice
            asked |= set(part.indices)
        rollout = Rollout.cat(parts)
        rewards = half(rollout.images, rollout.prompts)
        update = learner.tell(rollout, rewards)
        assert torch.equal(update.rewards, rewards) and update.prompts == rollout.prompts
        assert update.forwards >= len(rewards) and isinstance(update.forwards, int)
        assert update.selected >= 0 and update.optimiser_steps >= 0
    assert asked == set(range(learner.total))


@every
def test_figures_are_numbers(name: str) -> None:
    for round in run(make_learner(name)):
        figures = round.figures()
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures
        for key, value in figures.items():
            assert value is None or key == "rewards" or math.isfinite(value)


@every
def test_queries_are_spent_exactly(name: str) -> None:
    learner, heard = make_learner(name, batch_size=4), list[int]()
    rounds = list(train(learner, half, on_batch=heard.append))
    spent = sum(len(round.images) for round in rounds)
    assert spent == sum(heard) == learner.queries == learner.total == learner.config.queries
    assert [round.queries for round in rounds] == torch.tensor(
        [len(round.rewards) for round in rounds]
    ).cumsum(0).tolist()
    assert [round.round for round in rounds] == list(range(1, len(rounds) + 1))
    assert getattr(learner.config, "rounds", len(rounds)) == len(rounds)
    assert learner.done and rounds[-1].optimiser_steps == learner.optimiser_steps
    assert sum(round.update.optimiser_steps for round in rounds) == learner.optimiser_steps


@every
def test_the_seed_determines_all(name: str) -> None:
    one, same, other = make_learner(name), make_learner(name), make_learner(name, seed=7)
    rounds = run(one)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = run(same)
    assert torch.equal(before, torch.get_rng_state())  # nobody else's numbers are used up
    assert torch.equal(pictures(rounds), pictures(again))
    assert torch.equal(outcome(one), outcome(same))
    assert_same_state(one, same)
    assert not torch.allclose(pictures(rounds), pictures(run(other)))
    assert not torch.equal(outcome(one), outcome(other))


@every
@pytest.mark.parametrize("batch_size", [1, 4])
def test_batches_change_nothing(name: str, batch_size: int) -> None:
    whole, parts = make_learner(name, batch_size=16), make_learner(name, batch_size=batch_size)
    torch.testing.assert_close(pictures(run(whole)), pictures(run(parts)), atol=1e-5, rtol=0)
    torch.testing.assert_close(outcome(whole), outcome(parts), atol=1e-5, rtol=0)


@every
def test_it_goes_on_after_any_round_to_the_same_result(name: str, tmp_path: Path) -> None:
    whole = make_learner(name, batch_size=4)
    states, rounds = [snapshot(whole)], list[Round]()
    for round in train(whole, half):
        rounds.append(round)
        states.append(snapshot(whole))
    for done, state in enumerate(states):
        save_tensors(tmp_path / "state", *state, "test")
        tensors, strings = load_tensors(tmp_path / "state", "test")
        kept = {key: value.clone() for key, value in tensors.items()}
        resumed = make_learner(name, batch_size=4)
        resumed.load(tensors, strings)
        assert resumed.rounds == done and resumed.queries == sum(len(r.images) for r in rounds[:done])
        rest = run(resumed)
        assert [a.rewards.tolist() for a in rest] == [b.rewards.tolist() for b in rounds[done:]]
        assert [_timeless(a) for a in rest] == [_timeless(b) for b in rounds[done:]]
        assert_same_state(resumed, whole)
        assert torch.equal(outcome(resumed), outcome(whole))
        assert all(torch.equal(kept[key], value) for key, value in tensors.items())  # the state is only read


def _timeless(round: Round) -> dict[str, Any]:
    return {key: value for key, value in round.figures().items() if "seconds" not in key}


@every
def test_a_state_of_other_settings_is_refused(name: str) -> None:
    learner, entry = make_learner(name), LEARNERS[name]
    next(train(learner, half))
    state = snapshot(learner)
    others = [make_learner(name, seed=8), make_learner(name, prompts=["right"])]
    others.append(make_learner(next(key for key in LEARNERS if LEARNERS[key].method != entry.method)))
    for other in others:
        before = snapshot(other)
        with pytest.raises(ConfigError, match="state is that of another learner"):
            other.load(*state)
        assert all(torch.equal(value, other.state()[0][key]) for key, value in before[0].items())
    for free in learner.free:
        assert free in {field.name for field in fields(entry.config)}
    if "micro_batch" in learner.free:
        make_learner(name, micro_batch=1).load(*state)


@every
def test_asking_is_the_same_until_it_is_told(name: str) -> None:
    learner = make_learner(name, batch_size=4)
    while not learner.done:
        request, first, second = learner.ask(), batches_of(learner), batches_of(learner)
        assert request == learner.ask()
        assert all(torch.equal(a.x, b.x) for a, b in zip(first, second, strict=True))
        rollout = Rollout.cat(first)
        learner.tell(rollout, half(rollout.images, rollout.prompts))
        assert learner.done or request != learner.ask()


def fails(rewards: Tensor) -> Tensor:
    raise OSError("no connection")


#: By the call that fails: what the error says, and what comes instead of the rewards.
FAILURES: dict[int, tuple[str, Callable[[Tensor], Any]]] = {
    1: ("raised OSError: no connection", fails),
    3: ("returned nan for picture 0", lambda rewards: rewards * torch.nan),
    5: ("returned shape", lambda rewards: rewards[:, None]),
    8: ("not B numbers", lambda rewards: "good"),
}


@every
def test_a_reward_that_fails_stops_and_takes_nothing_with_it(name: str) -> None:
    whole, learner = make_learner(name, batch_size=4), make_learner(name, batch_size=4)
    run(whole)
    calls, seen = 0, list[str]()

    def flaky(images: Tensor, prompts: list[str]) -> Any:
        nonlocal calls
        calls += 1
        rewards = half(images, prompts)
        return FAILURES[calls][1](rewards) if calls in FAILURES else rewards

    while not learner.done:
        try:
            list(train(learner, flaky))
        except RewardError as error:
            seen.append(str(error))
    expected = [message for call, (message, _) in FAILURES.items() if call <= calls]
    assert len(seen) == len(expected) >= 3
    assert all(message in error for message, error in zip(expected, seen, strict=True))
    assert_same_state(learner, whole)
    assert torch.equal(outcome(learner), outcome(whole))


@every
def test_rewards_of_another_shape_are_refused(name: str) -> None:
    learner = make_learner(name)
    rollout = Rollout.cat(batches_of(learner))
    rewards, (before, strings) = half(rollout.images, rollout.prompts), snapshot(learner)
    for wrong in (rewards[:, None], rewards[:-1], rewards * torch.nan):
        with pytest.raises(ValueError, match=r"finite reward a sample, \(\d+,\)"):
            learner.tell(rollout, wrong)
    tensors, again = snapshot(learner)
    assert again == strings and all(torch.equal(value, tensors[key]) for key, value in before.items())


@every
@pytest.mark.parametrize("prompts", [(), ("",), ("left", " ")])
def test_prompts_that_say_nothing_are_refused(name: str, prompts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="at least one prompt, none of them empty"):
        make_learner(name, prompts=prompts)


@pytest.mark.parametrize("name", [key for key, entry in LEARNERS.items() if METHODS[entry.method].per_prompt])
def test_a_method_of_one_prompt_refuses_two(name: str) -> None:
    with pytest.raises(ConfigError, match=r"one prompt .*, not (for )?2"):
        make_learner(name, prompts=["left", "right"])


@every
def test_what_is_saved_is_what_was_learned(name: str, tmp_path: Path) -> None:
    learner = make_learner(name)
    run(learner)
    path = learner.save(tmp_path)
    file = {"find": NOISE, "anchors": GENERATOR, "noise-ppo": GENERATOR, "tune": LORA, "search": NOISES}
    assert path == tmp_path / file[LEARNERS[name].method] and list(tmp_path.iterdir()) == [path]
    learner.save(tmp_path)  # again, as a run that is resumed does
    assert list(tmp_path.iterdir()) == [path]
    if path.is_dir():  # weights, which a pipeline loads: tests/learners/test_denoiser.py
        assert any(path.iterdir())
        return
    for loaded in (load_artifact(path), load_artifact(tmp_path)):
        result = learner.result()
        assert type(loaded) is type(result)
        assert loaded.metadata == result.metadata == {**METADATA, "queries": str(learner.total)}
        if isinstance(loaded, NoiseGenerator):
            loaded._states = sides
            assert torch.equal(loaded.sample(learner.prompts, 3), result.sample(learner.prompts, 3))
        elif learner.kept() is not None:
            assert torch.equal(loaded.x_T, result.x_T)
            assert torch.equal(loaded.kept_rewards(), result.kept_rewards())
        else:
            assert torch.equal(loaded.sample(5, 3), result.sample(5, 3))


@every
def test_what_is_frozen_comes_back(name: str) -> None:
    learner = make_learner(name)
    run(learner)
    learned = outcome(learner)
    with learner.frozen():
        if LEARNERS[name].method == "tune":
            assert torch.equal(outcome(learner), outcome(make_learner(name)))
    assert torch.equal(outcome(learner), learned)
    for value in learner.record().values():
        json.dumps(value)
    assert learner.learned and isinstance(learner.learned, str)
