"""The methods that are compared, and their settings at the same number of reward queries a prompt.

Each method spends `queries` a prompt, and then gives `images` pictures of each: search the best that it
saw, what learns fresh ones. What learns from all prompts at once spends as many queries in all, in whole
rounds and at least one (tune: of 96).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from diffalign.settings.compare import CompareConfig
from diffalign.settings.fields import ConfigError
from diffalign.settings.methods import METHODS

USUAL_STEPS = 20  # of the sampler, for which first_steps of the preset of `tune` is meant
#: From what is compared, the number of prompts and of sampler steps to settings of a method.
Changes = Callable[[CompareConfig, int, int], dict[str, Any]]


def _anchors(config: CompareConfig, prompts: int, num_steps: int) -> dict[str, Any]:
    default = METHODS["anchors"].presets["default"]
    visited = min(prompts, default.prompts_per_round)
    rounds = config.queries * prompts // (visited * default.samples_per_prompt)
    return {"prompts_per_round": visited, "rounds": max(1, rounds)}


def _tune(config: CompareConfig, prompts: int, num_steps: int) -> dict[str, Any]:
    default = METHODS["tune"].presets["default"]
    first = max(1, num_steps * default.first_steps // USUAL_STEPS)
    return {"rounds": max(1, config.queries * prompts // default.samples), "first_steps": first}


def _search(config: CompareConfig, prompts: int, num_steps: int) -> dict[str, Any]:
    return {"queries": config.queries, "keep": config.images}


#: By the name that the command line knows: the method, and its settings.
COMPARED: Mapping[str, tuple[str, Changes] | None] = {
    "frozen": None,
    "best-of-n": ("search", _search),
    "halving": ("search", _search),
    "zero-order": ("search", _search),
    "spectral": ("search", _search),
    "spectral-fresh": ("search", _search),
    "find": ("find", lambda config, prompts, num_steps: {"queries": config.queries}),
    "anchors": ("anchors", _anchors),
    "tune": ("tune", _tune),
}


def settings_of(name: str, config: CompareConfig, prompts: int, num_steps: int) -> tuple[str, Any]:
    """The method that `name` stands for, which is not "frozen", and its settings of learning.

    Raises:
        ConfigError: if it cannot do with so few queries.
    """
    row = COMPARED[name]
    assert row is not None
    method, changes = row
    presets = METHODS[method].presets  # of search there is one of an algorithm's name
    learning = presets.get(name, presets["default"])
    try:
        return method, replace(learning, seed=config.seed, **changes(config, prompts, num_steps))
    except ConfigError as error:
        fault = str(error).partition("; ")[0]  # what would help the method may be no flag of `compare`
        raise ConfigError(
            f"{name} cannot be compared: {fault}; raise --queries, or leave it out of --methods"
        ) from error


def count_pictures(name: str, config: CompareConfig, prompts: int, num_steps: int) -> int:
    """How many pictures the method called `name` makes."""
    fresh = prompts * config.images
    if COMPARED[name] is None:
        return fresh
    method, learning = settings_of(name, config, prompts, num_steps)
    queries = int(learning.queries) * (prompts if METHODS[method].per_prompt else 1)
    return queries + (0 if method == "search" else fresh)
