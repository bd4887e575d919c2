"""Settings of tuning: what is refused, and what the presets have in common."""

from dataclasses import fields
from typing import Any

import pytest

from diffalign.settings.fields import ConfigError
from diffalign.settings.tune import PRESETS, TuneConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 10, "branches": 3}, "10 samples are no whole groups of 3 branches"),
        ({"objective": "dpo", "update_batch": 3}, "update_batch must be even, not 3"),
        ({"objective": "grpo"}, "objective must be one of pg, ppo, dpok, dpo"),
        ({"eta": 0.0}, "eta must be above 0"),
        ({"clip_range": 1.0}, "clip_range must be above 0 and below 1"),
    ],
)
def test_settings_that_make_no_sense_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TuneConfig(**change)


def test_a_published_preset_is_an_objective_and_a_strategy() -> None:
    def differing(one: str, other: str) -> set[str]:
        a, b = PRESETS[one], PRESETS[other]
        return {field.name for field in fields(a) if getattr(a, field.name) != getattr(b, field.name)}

    for name in ("ddpo", "pg", "dpok", "dpo"):
        assert differing(name, "ddpo") <= {"objective"}
        assert differing(f"b2-{name}", "b2-ddpo") <= {"objective"}
        assert differing(name, f"b2-{name}") == {
            *("samples", "min_count", "interval", "branches", "threshold", "update_batch")
        }
