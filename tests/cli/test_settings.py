from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from diffalign.cli.find import Plan, _defaults
from diffalign.training import NoiseConfig

from diffalign.cli import app
from diffalign.cli.options import Evaluation, Sampling
from diffalign.cli.settings import command_line, spell_out
from diffalign.methods import PRESETS


def parsed(*tokens: str) -> dict[str, Any]:
    _, bound, _ = app.parse_args(["find", *tokens])
    return bound.arguments


def learner(*tokens: str) -> dict[str, Any]:
    return asdict(parsed("a dog", *tokens).get("noise", NoiseConfig()))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: a cat\nbatch: 7\nqueries: 21\nnum_steps: 3\nreward: x:y\ndevice: null\n")
    return path


def test_sources_go_in_order(file: Path) -> None:
    """Flags, then the file, then the preset, then defaults."""
    paper = asdict(PRESETS["paper"])
    assert learner() == asdict(NoiseConfig())
    assert learner("--preset", "paper") == paper
    assert learner("--preset", "paper", "--seed", "4") == {**paper, "seed": 4}
    both = {**paper, "batch": 7, "queries": 5}
    assert learner("--preset", "paper", "--config", str(file), "--queries", "5") == both
    given = parsed("--config", str(file), "--reward", "world-scene")
    assert given["prompt"] == ("a cat",) and given["reward"] == "world-scene"
    assert given["sampling"] == Sampling(num_steps=3)
    assert parsed("a dog", "--config", str(file))["prompt"] == ("a dog",)
    assert "prompt" not in parsed("--prompts", "world/common", "--config", str(file))


def test_a_preset_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "paper.yaml"
    file.write_text("preset: paper\nseed: 2\n")
    assert learner("--config", str(file)) == {**asdict(PRESETS["paper"]), "seed": 2}


def test_ablations_replace_preset_and_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: paper\nadvantage: drcm\n")
    ablated = learner("--config", str(file), "--no-calibration", "--no-clipping")
    assert ablated == {**asdict(PRESETS["paper"]), "advantage": "none", "clip_range": 0.0}


@pytest.mark.parametrize(
    ("tokens", "spelled"),
    [
        (["find", "--resume"], ["find", "--resume="]),
        (["find", "--resume", "--debug"], ["find", "--resume=", "--debug"]),
        (["find", "--resume", "runs/x"], ["find", "--resume", "runs/x"]),
        (["find", "--", "--resume"], ["find", "--", "--resume"]),
    ],
)
def test_resume_may_stand_alone(tokens: list[str], spelled: list[str]) -> None:
    assert spell_out(tokens) == spelled


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    plan = Plan(
        "a 'quoted' dog",
        tmp_path,
        Sampling(guidance_scale=3.5, num_steps=7, dtype="float16"),
        "world-scene",
        "paper",
        replace(PRESETS["paper"], learning_rate=1e-5, seed=2),
        Evaluation(images=5, judge="none", baselines=False),
    )
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plan.settings(), sort_keys=False))
    import shlex

    for tokens in (
        ["--config", str(file)],
        shlex.split(command_line(plan.settings(), _defaults("paper")))[2:],
    ):
        given = parsed(*tokens)
        assert (given["prompt"], given["reward"], given["preset"]) == ((plan.prompt,), plan.reward, "paper")
        assert (given["sampling"], given["noise"]) == (plan.sampling, plan.noise)
        assert given["evaluation"] == plan.evaluation


def test_command_line_leaves_defaults_out() -> None:
    plan = Plan("a dog", Path(), Sampling(), "world-clip", "default", NoiseConfig(seed=1), Evaluation())
    assert command_line(plan.settings(), _defaults("default")) == "diffalign find 'a dog' --seed 1"
