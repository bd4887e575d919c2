"""Settings of noise PPO that make no sense."""

from typing import Any

import pytest

from diffalign.settings.fields import ConfigError
from diffalign.settings.methods import METHODS
from diffalign.settings.noise_ppo import PRESETS, NoisePPOConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"baseline": "mean"}, "baseline must be one of"),
        ({"samples_per_prompt": 1, "baseline": "leave-one-out"}, "must be above 1"),
        ({"basis": "fourier"}, "basis must be identity"),
        ({"hidden_size": 10}, "does not split into 4 heads"),
        ({"kl_weight": -1}, "kl_weight must be at least 0"),
        ({"clip_range": 0}, "clip_range must be above 0"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NoisePPOConfig(**change)


def test_the_default_is_the_papers() -> None:
    assert PRESETS["default"] == PRESETS["paper"]


def test_help_says_that_the_numbers_have_no_published_source() -> None:
    assert "its numbers have no published source" in METHODS["noise-ppo"].help
