"""Settings of tuning: what is refused, and what the presets have in common."""

from dataclasses import fields
from typing import Any

import pytest

from diffalign.settings.fields import ConfigError
from diffalign.settings.methods import METHODS
from diffalign.settings.tune import PRESETS, SAMPLING, TuneConfig


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 10, "branches": 3}, "10 samples are no whole groups of 3 branches"),
        ({"objective": "dpo", "update_batch": 3}, "update_batch must be even, not 3"),
        ({"objective": "grpo"}, "objective must be one of pg, ppo, dpok, dpo"),
        ({"eta": 0.0}, "eta must be above 0"),
        ({"learning_rate": 1e38}, r"learning_rate must be above 0 and at most 1e\+16"),
        ({"dpok_beta": 1e38}, r"dpok_beta must be at least 0 and at most 1e\+16"),
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


def test_both_readings_of_b2_are_presets() -> None:
    table, scripts = PRESETS["b2-ddpo"], PRESETS["b2-ddpo-released"]
    assert (table.samples, table.inner_epochs, table.update_batch, table.clip_range) == (255, 1, 256, 1e-4)
    assert (scripts.samples // scripts.branches, scripts.branches, scripts.inner_epochs) == (8 * 32, 5, 2)
    assert (scripts.update_batch, scripts.clip_range, scripts.learning_rate) == (128, 0.1, 1e-4)


def test_what_b2_compares_samples_as_its_table_6() -> None:
    published = [name for name in PRESETS if not name.endswith(("default", "grpo"))]
    assert all(SAMPLING[name] == {"num_steps": 20, "guidance_scale": 5.0} for name in published)
    assert {PRESETS[name].eta for name in published} == {1.0}


def test_presets_of_flow_matching_are_as_published() -> None:
    """In their code: config/grpo.py and train_sd3.py; finetune_flux_grpo.sh, MixGRPO's likewise."""
    flow, dance, mix = (PRESETS[name] for name in ("flow-grpo", "dance-grpo", "mix-grpo"))
    assert (flow.sde, flow.eta, flow.samples_per_prompt, flow.lora_rank) == ("flow-grpo", 0.7, 24, 32)
    assert (flow.dpok_beta, flow.clip_range, flow.learning_rate) == (0.04, 1e-4, 3e-4)
    assert (dance.sde, dance.eta, dance.branches, dance.learning_rate) == ("dance-grpo", 0.3, 12, 1e-5)
    assert (mix.interval, mix.first_steps, mix.slide_rounds, mix.eta) == ("sliding", 4, 25, 0.7)
    assert [SAMPLING[name]["num_steps"] for name in ("flow-grpo", "dance-grpo", "mix-grpo")] == [10, 16, 25]


def test_help_names_the_presets_in_which_clipping_never_acts() -> None:
    def steps(config: TuneConfig) -> int:
        """Of a round, at most: of each group of branches the best and the worst are learned from."""
        all_of_them = config.branches == 1 or not config.threshold
        learned = config.samples if all_of_them else 2 * (config.samples // config.branches)
        return config.inner_epochs * -(-learned // config.update_batch)

    clipping = {name: config for name, config in PRESETS.items() if config.objective in ("ppo", "dpok")}
    never = [name for name, config in clipping.items() if steps(config) == 1]
    assert never == ["default", "b2-ddpo", "b2-dpok"]
    assert "default, b2-ddpo and\nb2-dpok take one optimiser step a round" in METHODS["tune"].help
