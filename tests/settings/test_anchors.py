"""Settings of anchors that make no sense."""

from typing import Any

import pytest

from diffalign.settings.anchors import AnchorConfig
from diffalign.settings.fields import ConfigError


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"effective": 5, "components": 4}, "effective must be below components, 4, not 5"),
        ({"effective": 0.5}, "effective must be at least 1"),
        ({"explore": 0.01}, "explore is a share"),
        ({"explore": 1.5}, "explore must be above 0 and at most 1"),
        ({"components": 1}, "components must be at least 2"),
        ({"correlation": 1.0}, "correlation must be above 0 and below 1"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AnchorConfig(**change)


def test_queries_are_pictures_of_all_rounds() -> None:
    assert AnchorConfig(rounds=3, prompts_per_round=4, samples_per_prompt=5).queries == 60
