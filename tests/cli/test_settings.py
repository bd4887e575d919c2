"""Where settings come from, and that a plan is the same as file, as command line and in Python."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffalign.cli import app
from diffalign.cli.settings import spell_out
from diffalign.settings.evaluation import FindEvaluation, HeldOutEvaluation, SearchEvaluation
from diffalign.settings.fields import ConfigError
from diffalign.settings.find import PRESETS, FindConfig
from diffalign.settings.methods import METHODS
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling


def parsed(*tokens: str, command: str = "find") -> dict[str, Any]:
    _, bound, _ = app.parse_args([command, *tokens])
    bound.apply_defaults()
    return bound.arguments


def planned(*tokens: str, command: str) -> Plan:
    """The one plan that a command line asks for."""
    from diffalign.cli.learn import _plans

    given = parsed(*tokens, command=command)
    settings = [given[name] for name in ("reward", "preset", "sampling", "learning", "evaluation")]
    (plan,) = _plans(command, METHODS[command], given["prompt"], given["prompts"], tuple(settings))
    return plan


def learner(*tokens: str) -> dict[str, Any]:
    return asdict(parsed("a dog", *tokens)["learning"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: a cat\nbatch: 7\nqueries: 21\nnum_steps: 3\nreward: x:y\ndevice: null\n")
    return path


def test_sources_go_in_order(file: Path) -> None:
    """Flags, then the file, then the preset, then defaults."""
    paper = asdict(PRESETS["paper"])
    assert learner() == asdict(FindConfig())
    assert learner("--preset", "paper") == paper
    assert learner("--preset", "paper", "--seed", "4") == {**paper, "seed": 4}
    both = {**paper, "batch": 7, "queries": 5}
    assert learner("--preset", "paper", "--config", str(file), "--queries", "5") == both
    given = parsed("--config", str(file), "--reward", "world-scene")
    assert given["prompt"] == ("a cat",) and given["reward"] == "world-scene"
    assert given["sampling"] == Sampling(num_steps=3)
    assert parsed("a dog", "--config", str(file))["prompt"] == ("a dog",)
    assert parsed("--prompts", "world/common", "--config", str(file))["prompt"] == ()


@pytest.mark.parametrize("text", ["seed: 1\nbatch: 7\nseed: 2\n", "{seed: 1, seed: 1}"])
def test_a_setting_stands_once_in_a_file(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml: not YAML .seed stands there twice"):
        learner("--config", str(file))


@pytest.mark.parametrize("text", ["{[seed]: 1}", "? {a: b}\n: 1\n"])
def test_a_list_is_no_setting(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.yaml: not YAML .*unhashable key"):
        learner("--config", str(file))


@pytest.mark.parametrize("text", ["overwrite: true\n", "dry-run: true\n"])
def test_a_file_does_not_say_what_to_do(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="stands on the command line alone"):
        learner("--config", str(file))


def sampling(*tokens: str, command: str = "find") -> Sampling:
    return parsed("a dog", *tokens, command=command)["sampling"]


def test_a_preset_sets_sampling() -> None:
    """Of what the command line does not."""
    paper = Sampling(num_steps=50, guidance_scale=7.5, scheduler="ddim")
    for name in ("paper", "paper-no-drcm", "paper-no-rca"):
        assert sampling("--preset", name) == paper
    assert sampling() == sampling("--preset", "default") == Sampling()
    flags = ["--num-steps", "4", "--guidance-scale", "3", "--scheduler", "keep"]
    assert sampling("--preset", "paper", *flags) == Sampling(num_steps=4, guidance_scale=3.0)
    assert sampling("--preset", "paper", "--num-steps", "4") == replace(paper, num_steps=4)
    assert sampling("--preset", "paper", "--guidance-scale", "none") == replace(paper, guidance_scale=None)
    b2 = Sampling(num_steps=20, guidance_scale=5.0)
    for name in set(METHODS["tune"].presets) - {"default", "flow-grpo", "dance-grpo", "mix-grpo"}:
        assert sampling("--preset", name, command="tune") == b2
    flow = sampling("--preset", "flow-grpo", command="tune")
    assert flow == Sampling(num_steps=10, guidance_scale=4.5)
    assert sampling("--preset", "b2-dpo", "--guidance-scale", "2", command="tune").guidance_scale == 2.0


def test_a_file_wins_over_its_preset_s_sampling(tmp_path: Path) -> None:
    """null too, which is the model's own guidance, as in the config.yaml of a run."""
    file = tmp_path / "mine.yaml"
    file.write_text("preset: paper\nnum_steps: 6\n")
    mine = Sampling(num_steps=6, guidance_scale=7.5, scheduler="ddim")
    assert sampling("--config", str(file)) == mine
    assert sampling("--config", str(file), "--num-steps", "8") == replace(mine, num_steps=8)
    for key in ("guidance_scale", "guidance-scale"):
        file.write_text(f"num_steps: 20\n{key}: null\nscheduler: keep\n")
        assert sampling("--config", str(file), "--preset", "paper") == Sampling()
    file.write_text("preset: paper\nnum_steps: null\nscheduler: null\n")
    assert sampling("--config", str(file)) == Sampling(num_steps=50, guidance_scale=7.5, scheduler="ddim")


def test_a_preset_may_stand_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "paper.yaml"
    file.write_text("preset: paper\nseed: 2\n")
    assert learner("--config", str(file)) == {**asdict(PRESETS["paper"]), "seed": 2}


def test_ablations_are_presets_and_flags(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: paper\nadvantage: drcm\n")
    ablated = learner("--config", str(file), "--advantage", "none", "--clip-range", "0")
    assert ablated == {**asdict(PRESETS["paper"]), "advantage": "none", "clip_range": 0.0}
    assert learner("--preset", "paper-no-drcm") == {**asdict(PRESETS["paper"]), "advantage": "none"}
    assert learner("--preset", "paper-no-rca") == {**asdict(PRESETS["paper"]), "clip_range": 0.0}


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


_SAMPLING = Sampling(guidance_scale=3.5, num_steps=7, dtype="float16", offload=True, reward_device="cpu")
_HELD_OUT = HeldOutEvaluation(images=5, check_every=2, keep=1, stop_on_alarm=True, held_out="world/heldout")
PLANS = [
    Plan(
        "find",
        ("a 'quoted' \"dog\"",),
        replace(PRESETS["paper"], learning_rate=1e-5, seed=2, history=False, batch=3),
        FindEvaluation(images=5, judge="none", baselines=False, tracker="tensorboard"),
        _SAMPLING,
        "world-scene",
        "paper",
    ),
    Plan("find", ("-5 degrees, a dog",), FindConfig(seed=-1), FindEvaluation(), Sampling()),
    Plan("find", ("null",), FindConfig(), FindEvaluation(), Sampling(model="123")),
    Plan("anchors", "world/many", METHODS["anchors"].config(explore=1), _HELD_OUT, _SAMPLING),
    Plan("anchors", ("a dog", "two cats"), METHODS["anchors"].config(), HeldOutEvaluation(), Sampling()),
    Plan(
        "noise-ppo",
        "my prompts.txt",
        METHODS["noise-ppo"].config(basis="dct4", kl_weight=0.0),
        replace(_HELD_OUT, baselines=True),
        Sampling(),
        "clip + 0.5*aesthetic",
        "paper",
    ),
    Plan(
        "tune",
        ("a dog", "true", "--prompts"),
        replace(METHODS["tune"].presets["b2-dpok"], gradient_checkpointing=True, samples=30),
        _HELD_OUT,
        Sampling(scheduler="ddim"),
        preset="b2-dpok",
    ),
    Plan(
        "search",
        ("四只熊猫 🐼",),
        METHODS["search"].config("spectral", elites=1, seed=-3),
        SearchEvaluation(tracker="tensorboard"),
        _SAMPLING,
        preset="spectral",
    ),
]
PLANS += [
    Plan(
        name,
        ("a dog",) if row.per_prompt else "world/unusual",
        config,
        row.evaluation(),
        sampling,
        preset=preset,
    )
    for name, row in METHODS.items()
    for preset, config in row.presets.items()
    for sampling in dict.fromkeys([Sampling(), Sampling(**row.sampling.get(preset, {}))])
]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: f"{plan.method}-{plan.preset}")
def test_a_plan_is_read_as_it_was_written(plan: Plan, tmp_path: Path) -> None:
    """By `--resume`, by `--config`, and from the command line that the run's summary shows."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plan.mapping(), sort_keys=False))
    assert Plan.of(yaml.safe_load(file.read_text())) == plan
    words = shlex.split(plan.command())
    assert words[:2] == ["diffalign", plan.method]
    assert planned("--config", str(file), command=plan.method) == plan
    assert planned(*words[2:], command=plan.method) == plan


def test_command_line_leaves_defaults_out() -> None:
    def command(method: str, prompts: str | tuple[str, ...], preset: str = "default", **changes: Any) -> str:
        row = METHODS[method]
        learning = replace(row.presets[preset], **changes)
        sampling = Sampling(**row.sampling.get(preset, {}))
        return Plan(method, prompts, learning, row.evaluation(), sampling, preset=preset).command()

    assert command("find", ("a dog",), seed=1) == "diffalign find 'a dog' --seed 1"
    assert command("search", ("a dog",), "spectral") == "diffalign search 'a dog' --preset spectral"
    assert command("tune", "world/many", "ddpo", rounds=3) == (
        "diffalign tune --prompts world/many --preset ddpo --rounds 3"
    )
    assert command("find", ("a dog",), "paper", seed=1) == "diffalign find 'a dog' --preset paper --seed 1"
    assert command("anchors", ("a", "b")) == "diffalign anchors a b"


def config(method: str = "find", **changes: Any) -> dict[str, Any]:
    row = METHODS[method]
    prompts: Any = ("a dog",) if row.per_prompt else "world/many"
    return {**Plan(method, prompts, row.config(), row.evaluation(), Sampling()).mapping(), **changes}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "unknown method 'none'; choose one of: find, anchors"),
        ({"method": "fnd"}, r"unknown method 'fnd'; .* \(did you mean 'find'\?\)"),
        ({"method": ["find"]}, "unknown method"),
        (config(querys=3), r"unknown setting 'querys'; .* \(did you mean 'queries'\?\)"),
        (config(rounds=3), "unknown setting 'rounds'"),
        (config(preset="papr"), r"unknown preset 'papr'; .* \(did you mean 'paper'\?\)"),
        (config(preset=["paper"]), "unknown preset"),
        (config(queries="many"), "queries must be of the type int, not 'many'"),
        (config(queries=True), "queries must be of the type int, not True"),
        (config(num_steps=2.5), "num_steps must be of the type int, not 2.5"),
        (config(baselines=3), "baselines must be of the type bool, not 3"),
        (config(baselines=None), "baselines must be of the type bool, not None"),
        (config(learning_rate=float("nan")), "learning_rate must be a finite number"),
        (config(learning_rate=float("inf")), "learning_rate must be a finite number"),
        (config(advantage=["rank"]), "advantage must be one of"),
        (config(queries=0), "queries must be at least 1, not 0"),
        (config(reward=3), "reward must be text, not 3"),
        (config(model=None), "model must be of the type str, not None"),
        (config(prompt=""), "prompt must be text, not ''"),
        (config(prompt=3), "prompt must be text, not 3"),
        (config(prompt=None), "prompt must be text, not None"),
        (config("tune", prompts=[]), r"prompts must be text, not \[\]"),
        (config("tune", prompts=["a", " "]), "prompts must be text"),
        (config("tune", prompts={"a": 1}), "prompts must be text"),
        (config("find", prompts="world/many"), r"unknown setting 'prompts'; .* \(did you mean 'prompt'\?\)"),
        (config("tune", prompt="a dog"), r"unknown setting 'prompt'; .* \(did you mean 'prompts'\?\)"),
        (config("search", keep=200), "cannot keep 200 of 150"),
        (config("anchors", held_out=3), "held_out must be of the type str, not 3"),
    ],
)
def test_a_config_that_is_none_is_told(content: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Plan.of(content)


def test_a_method_s_settings_have_their_own_names() -> None:
    """A run's config.yaml and its flags are one mapping: no name may stand for two things."""
    for row in METHODS.values():
        parts: Sequence[Any] = (row.config(), row.evaluation(), Sampling())
        names = [name for part in parts for name in asdict(part)]
        assert len(names) == len(set(names))
        assert not {"method", "prompt", "prompts", "reward", "preset", "out", "resume"} & set(names)
