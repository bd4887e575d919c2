"""Settings of search: numbers that make no sense."""

from typing import Any

import pytest

from diffalign.settings.fields import ConfigError
from diffalign.settings.search import PRESETS, SearchConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": 0}, "keep must be at least 1"),
        ({"keep": 51, "queries": 50}, "cannot keep 51 of 50 pictures"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"algorithm": "spectral", "keep": 26, "queries": 50}, "at most half of 50 queries, not 26"),
        (
            {"algorithm": "spectral-fresh", "keep": 26, "queries": 50},
            "spectral-fresh keeps at most half",
        ),
        (
            {"algorithm": "best-of-m"},
            "must be one of best-of-n, halving, zero-order, spectral, spectral-fresh",
        ),
        ({"radius": 0.0}, "radius must be above 0"),
        ({"radius": 1e39}, r"radius must be a finite number"),
        ({"population": 1}, "population must be at least 2"),
        ({"elites": 1.5}, "elites must be above 0 and at most 1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SearchConfig(**change)


def test_a_preset_is_its_algorithm() -> None:
    assert {name: preset.algorithm for name, preset in PRESETS.items()} == {
        "default": "best-of-n",
        "halving": "halving",
        "zero-order": "zero-order",
        "spectral": "spectral",
        "spectral-fresh": "spectral-fresh",
    }


def test_spectral_search_is_as_published() -> None:
    published = PRESETS["spectral"]
    assert (published.population, published.elites, published.preview_steps) == (10, 0.5, 10)
