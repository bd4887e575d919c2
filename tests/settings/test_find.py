"""Settings of FIND: what is out of range, and what contradicts another."""

from typing import Any

import pytest

from diffalign.settings.fields import ConfigError
from diffalign.settings.find import PRESETS, SAMPLING, FindConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": 0}, "queries must be at least 1, not 0"),
        ({"advantage": "drmc"}, "advantage must be one of"),
        ({"clip_range": 1.0}, "clip_range"),
        ({"batch": 1}, "batch must be above 1"),
        ({"optimiser": "sgd"}, "adamw, natural"),
        ({"components": 1}, r"0 \(one Gaussian\) or at least 2"),
        ({"queries": 4}, "at least 5 queries"),
        ({"antithetic": True}, "components 0 learns one Gaussian"),
        ({"std": "learned"}, "components 0 learns one Gaussian"),
        ({"advantage": "drcm"}, "components must be 0"),
        ({"correlation": 1.0}, "correlation must be above 0 and below 1"),
        ({"basis": "fourier"}, "basis must be identity"),
        ({"std": "preserving", "optimiser": "adamw", "components": 0}, "natural alone sees to"),
        ({"start": "runs/x", "components": 0}, "components must not be 0"),
        ({"history": True}, "leave history out"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
    ],
)
def test_settings_that_make_no_sense_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FindConfig(**change)


def test_an_ablation_differs_from_the_paper_in_its_part_alone() -> None:
    paper = PRESETS["paper"]
    assert (paper.advantage, paper.clip_range) == ("drcm", 0.02)
    for name, change in (
        ("paper-no-drcm", {"advantage": "none"}),
        ("paper-no-rca", {"clip_range": 0.0}),
    ):
        assert vars(PRESETS[name]) == vars(paper) | change


def test_the_papers_presets_sample_and_calibrate_as_its_release() -> None:
    """DDIM, 50 steps, guidance 7.5; a value network that makes one step of 1e-4 an iteration."""
    papers = [name for name in PRESETS if name.startswith("paper")]
    assert list(SAMPLING) == papers
    for name in papers:
        assert SAMPLING[name] == {"num_steps": 50, "guidance_scale": 7.5, "scheduler": "ddim"}
        assert (PRESETS[name].value_learning_rate, PRESETS[name].value_updates) == (1e-4, 1)


@pytest.mark.parametrize(("queries", "rounds"), [(150, 7), (60, 4), (5, 2)])
def test_rounds_follow_from_queries(queries: int, rounds: int) -> None:
    assert FindConfig(queries=queries).rounds == rounds
