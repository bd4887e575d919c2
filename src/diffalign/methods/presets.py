"""Settings by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from diffalign.training import ConfigError

Config = TypeVar("Config", bound=Any)


def choose(presets: Mapping[str, Config], name: str, changes: Mapping[str, Any]) -> Config:
    """The settings called `name`, with `changes`.

    Raises:
        ConfigError: if there is no such preset, or a change is out of range.
    """
    if name not in presets:
        near = difflib.get_close_matches(name, presets, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(f"unknown preset {name!r}; choose one of: {', '.join(presets)}{hint}")
    return replace(presets[name], **changes)
