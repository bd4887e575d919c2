"""Every member of the package has its entry in the tables, and so is held to the contracts."""

import pkgutil
from importlib import import_module
from inspect import isabstract, isclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from torch import nn

from diffalign import Sampler, advantages, learners, load_pipeline, objectives, policies, rewards, strategies
from diffalign.learners.contract import Learner
from diffalign.learners.decisions import OBJECTIVES as DECISIONS
from diffalign.learners.find import CALIBRATIONS
from diffalign.learners.searches import SEARCHES
from diffalign.methods import build
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.settings.methods import METHODS
from diffalign.settings.noise_ppo import NoisePPOConfig
from diffalign.settings.sampling import Sampling
from diffalign.settings.search import Algorithm
from diffalign.settings.tune import TuneConfig

from .tables import (
    ADVANTAGES,
    ELSEWHERE,
    INTERVALS,
    LEARNERS,
    NOISE_POLICIES,
    OBJECTIVES,
    PROMPTS,
    REWARDS,
    make_learner,
)

ROOT = Path(__file__).parents[2]
TUNED = get_args(get_type_hints(TuneConfig)["objective"])


def classes(room: Any, kind: type[Any]) -> set[type[Any]]:
    """Those of a room that can be made."""
    modules = [import_module(f"{room.__name__}.{info.name}") for info in pkgutil.iter_modules(room.__path__)]
    found = {value for module in modules for value in vars(module).values() if isclass(value)}
    return {
        value
        for value in found
        if issubclass(value, kind) and value.__module__.startswith(room.__name__) and not isabstract(value)
    }


def test_every_method_has_a_learner() -> None:
    assert {entry.method for entry in LEARNERS.values()} == set(METHODS)


def test_every_learner_is_made() -> None:
    made = {type(make_learner(name)) for name in LEARNERS}
    assert made == {kind for kind in classes(learners, Learner) if kind.__name__ != "SearchLearner"}


def test_every_search_is_made() -> None:
    made = {entry.config.algorithm for entry in LEARNERS.values() if entry.method == "search"}
    assert made == set(SEARCHES) == set(get_args(Algorithm))


def test_every_objective_is_tuned_by() -> None:
    made = {entry.config.objective for entry in LEARNERS.values() if entry.method == "tune"}
    assert made == set(TUNED) == set(OBJECTIVES) == set(DECISIONS)
    assert {name for name in objectives.__all__ if name.endswith("_loss")} == {
        *("policy_gradient_loss", "ppo_loss", "dpok_loss", "dpo_loss")
    }


def test_every_interval_has_its_entry() -> None:
    assert set(get_args(get_type_hints(TuneConfig)["interval"])) == set(INTERVALS)
    found = {name for name in vars(strategies) if name.endswith("_interval")}
    assert found == {f"{name}_interval" for name in INTERVALS if name != "full"}


def test_every_policy_has_its_entry() -> None:
    made = {type(entry.make()) for entry in NOISE_POLICIES.values()}
    assert made | {DenoiserPolicy} == classes(policies, nn.Module)


def test_every_advantage_has_its_entry() -> None:
    baselines = set(get_args(get_type_hints(NoisePPOConfig)["baseline"])) - {"value"}
    assert set(ADVANTAGES) == {*CALIBRATIONS, *baselines}
    functions = {name.replace("_", "-") for name in advantages.__all__ if name.islower()}
    assert functions == set(ADVANTAGES) - {"running"}


def test_every_reward_has_its_entry() -> None:
    assert set(REWARDS) & set(rewards.REWARDS) | set(ELSEWHERE) == set(rewards.REWARDS)
    for name, file in ELSEWHERE.items():
        assert name in (ROOT / file).read_text()


SMALL: dict[str, dict[str, Any]] = {
    "find": {"queries": 6, "batch": 2},
    "anchors": {"rounds": 1, "prompts_per_round": 2, "samples_per_prompt": 2},
    "noise-ppo": {"rounds": 1, "prompts_per_round": 2, "samples_per_prompt": 2},
    "tune": {"rounds": 1, "samples": 6, "first_steps": 1},
    "search": {"queries": 4, "keep": 1},
}


@pytest.mark.parametrize("name", METHODS)
def test_a_row_builds_the_learner_of_its_entry(name: str, tiny_pipeline_folder: Path) -> None:
    row, entries = METHODS[name], [key for key, entry in LEARNERS.items() if entry.method == name]
    sampler = Sampler(load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=2)
    learner = build(name, sampler, PROMPTS[:1] if row.per_prompt else PROMPTS, row.config(**SMALL[name]), "r")
    assert type(learner) is type(make_learner(entries[0]))
    assert isinstance(row.presets["default"], row.config)
    assert "default" not in row.sampling and row.sampling.keys() <= row.presets.keys()
    for settings in row.sampling.values():
        Sampling(**settings)
    assert learner.metadata.items() > {"reward": "r", "num_steps": "2"}.items()
    assert all(isinstance(value, str) for value in learner.metadata.values())
    assert ("prompt" in learner.metadata) == row.per_prompt
