import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffalign.cli import app
from diffalign.settings.methods import METHODS

COMMANDS = (
    "find",
    "anchors",
    "noise-ppo",
    "tune",
    "search",
    "compare",
    "distil",
    "generate",
    "evaluate",
    "measure",
    "report",
    "runs",
    "study",
    "study-results",
    "models",
    "rewards",
    "prompts",
    "serve",
    "doctor",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str, diffalign) -> None:
    done = diffalign(command, "--help")
    assert done.code == 0
    if command not in ("models", "rewards"):
        assert f"diffalign {command} " in done.out.split("╭")[0].replace("Usage: ", "", 1)
    assert "See `" not in done.out


def test_help_lists_the_commands_without_loading_torch() -> None:
    script = (
        "import sys; from diffalign.cli import run; run(['--help']); run(['search', '--help']);"
        "print(*{'torch', 'diffusers', 'transformers', 'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert all(f"│ {command} " in done.stdout for command in COMMANDS)
    assert done.stdout.splitlines()[-1] == ""


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_of_a_method_is_a_flag(name: str, diffalign) -> None:
    from dataclasses import fields

    from diffalign.settings.sampling import Sampling

    row, out = METHODS[name], diffalign(name, "--help").out
    for kind in (row.config, row.evaluation, Sampling):
        for field in fields(kind):
            assert f"--{field.name.replace('_', '-')} " in out
    for part in ("PROMPT", "--prompts", "--reward", "--out", "--overwrite", "--resume", "--config"):
        assert f"│ {part} " in out
    said = " ".join(out.replace("│", " ").split())
    assert f"Which settings to start from: {', '.join(row.presets)}." in said
    if name == "find":
        paper = "--num-steps 50 --guidance-scale 7.5 --scheduler ddim"
        assert f"With paper, paper-no-drcm, paper-no-rca: {paper}." in said
    assert ("With " in said) == bool(row.sampling)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_setting_has_a_phrase_and_its_choices(command: str, diffalign) -> None:
    """A phrase starts with a capital and ends with a period; what may be chosen is listed."""
    out = " ".join(diffalign(command, "--help").out.replace("│", " ").split())
    shown = [each for each in app[command].assemble_argument_collection(parse_docstring=True) if each.show]
    for argument in shown:
        phrase = argument.parameter.help or ""
        assert phrase[:1].isupper() and phrase.endswith("."), f"{argument.name}: {phrase!r}"
        if choices := argument.get_choices():
            assert f"{argument.name} CHOICE " in out and f"[choices: {', '.join(choices)}]" in out
    literal = [each.name for each in shown if "Literal" in str(each.hint)]
    assert literal == [each.name for each in shown if each.get_choices()]


def test_module_and_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diffalign", "--version"], capture_output=True, text=True, check=True
    )
    from diffalign import __version__

    assert done.stdout.strip() == __version__


def test_evaluate_repeats_the_figures_of_the_run(diffalign, small) -> None:
    diffalign("find", "a dog", *small, "--no-baselines", "--out", "run")
    done = diffalign("evaluate", "run", "--images", 6, "--batch-size", 4)
    assert done.code == 0 and "gain: learned less frozen" in done.out
    ours = json.loads(Path("run/evaluation.json").read_text())
    summary = json.loads(Path("run/summary.json").read_text())
    assert ours["rows"] == summary["rows"] and ours["gain"] == summary["gain"]
    assert ours["cost"]["tuned"]["reward_queries"] == 12
    done = diffalign("evaluate", "run/noise.safetensors", "--reward", "own_reward:green", "--out", "g/g.json")
    assert done.code == 0
    assert json.loads(Path("g/g.json").read_text())["reward"] == "own_reward:green"


def test_report_writes_the_page_anew(diffalign, small) -> None:
    diffalign("find", "a dog", *small, "--no-baselines", "--out", "all/run")
    page = Path("all/run/report.html").read_bytes()
    Path("all/run/report.html").unlink()
    for folder in ("all/run", "all"):
        assert diffalign("report", folder).code == 0
        assert Path("all/run/report.html").read_bytes() == page
    assert diffalign("search", "a dog", *small[:6], "--queries", 2, "--keep", 1, "--out", "all/a").code == 0
    pages = {Path("all", name, "report.html"): b"" for name in ("run", "a")}
    for path in pages:
        pages[path] = path.read_bytes()
        path.unlink()
    Path("all/b").mkdir()
    Path("all/b/summary.json").write_text("{}")
    done = diffalign("report", "all", "--charts", "svg")
    assert done.code == 0, done.err
    assert "all/b is left out:" in done.err
    assert {path: path.read_bytes() for path in pages} == pages
    for path in pages:
        assert path.with_name("reward_curve.svg").read_text().startswith("<?xml")
    assert diffalign("report", "all/b").code == 2


def test_lists(diffalign) -> None:
    assert "world" in diffalign("models").out
    assert "world-scene" in diffalign("rewards").out
    assert "world/heldout" in diffalign("prompts").out
    lines = diffalign("prompts", "world/heldout").out.splitlines()
    from diffalign import load_prompts

    assert tuple(lines) == load_prompts("world/heldout").texts


def test_doctor(diffalign, tiny_pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--model", tiny_pipeline_folder, "--device", "cpu"]
    done = diffalign("doctor", *options, "--reward", "own_reward:red")
    assert done.code == 0 and done.out.splitlines()[-1] == "OK"
    assert all(name in done.out for name in ("versions", "device", "pictures", "reward"))
    done = diffalign("doctor", *options, "--reward", "own_reward:rad")
    assert done.code == 1 and "FAULT reward: the module 'own_reward' has no 'rad'" in done.out
    done = diffalign("doctor", *options, "--reward", "clip")
    assert done.code == 1 and "`hf download openai/clip-vit-large-patch14`" in done.out
    done = diffalign("doctor", *options, "--reward", "world-clip")
    assert done.code == 1 and "the reward world-clip reads 64×64 pictures" in done.out
    monkeypatch.delitem(sys.modules, "diffalign.rewards.bertscore", raising=False)
    monkeypatch.setitem(sys.modules, "bert_score", None)
    done = diffalign("doctor", *options, "--reward", "bert-score")
    assert done.code == 1 and "pip install 'diffalign[rewards]'" in done.out
    done = diffalign("doctor", "--model", "wrld")
    assert done.code == 1 and "did you mean 'world'?" in done.out


def test_doctor_of_a_flow_whose_last_step_is_no_decision(diffalign) -> None:
    done = diffalign("doctor", "--model", "world-flow", "--device", "cpu")
    assert done.code == 0 and done.out.splitlines()[-1] == "OK"
    assert "world-clip" in done.out and "tuned by diffalign tune" in done.out


def test_doctor_says_how_much_the_noise_decides(diffalign, tmp_path) -> None:
    (tmp_path / "two.txt").write_text("a dog on the grass\na blue cat\n")
    options = ["--device", "cpu", "--num-steps", 4, "--prompts", tmp_path / "two.txt"]
    done = diffalign("doctor", *options, "--seeds", 5)
    assert done.code == 0 and done.out.splitlines()[-1] == "OK"
    assert "weights take 0.03 GB in float32 (text_encoder 0.00, unet 0.02, vae 0.00)" in done.out
    shares = [int(share) for share in re.findall(r"(?:noise|prompt) +(\d+) %", done.out)]
    assert len(shares) == 3 and sum(shares) == pytest.approx(100, abs=2)
    assert "best of 4 seeds" in done.out and "best of 16" not in done.out and "judged right" in done.out
    assert "recommended: " in done.out
    done = diffalign("doctor", *options, "--seeds", 1)
    assert done.code == 2 and "two prompts and two seeds" in done.err


def test_threads(diffalign) -> None:
    threads = torch.get_num_threads()
    try:
        assert diffalign("models", "--threads", 2).code == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_every_command_is_tested_here() -> None:
    assert {name for name in app if not name.startswith("-")} == set(COMMANDS)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (2000, "DDIMScheduler takes no 2000 steps: "),
        (1000, "begins at step 1000 of a schedule whose last is 999; take fewer steps"),
    ],
)
def test_steps_that_a_schedule_lacks_are_said_before_a_folder_is_made(
    method: str, steps: int, said: str, diffalign, tiny_pipeline_folder: Path
) -> None:
    model = ["--model", tiny_pipeline_folder, "--reward", "own_reward:red"]
    done = diffalign(method, "a dog", *model, "--num-steps", steps)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert not Path("runs").exists()


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_that_torch_cannot_take_is_refused(method: str, diffalign) -> None:
    done = diffalign(method, "a dog", "--seed", 2**64)
    assert done.code == 2 and "seed must be at least " in done.err


@pytest.mark.parametrize("command", ["generate", "evaluate"])
def test_a_seed_of_pictures_that_torch_cannot_take_is_refused(command: str, diffalign) -> None:
    done = diffalign(command, "run", "--seed", 2**64)
    assert done.code == 2 and "--seed" in done.err and "Must be <= 9223372036854775807" in done.err


@pytest.mark.parametrize(
    ("command", "queries"),
    [
        (["find", "a dog", "a cat", "--queries", 12, "--batch", 4, "--images", 2], 24),
        (["tune", "a dog", "a cat", "--samples", 12, "--rounds", 3, "--first-steps", 2, "--images", 2], 36),
    ],
)
def test_a_dry_run_says_what_a_run_would_take_and_leaves_nothing(
    diffalign, tiny_pipeline_folder: Path, command: list[object], queries: int
) -> None:
    options = ["--model", tiny_pipeline_folder, "--device", "cpu", "--num-steps", 2]
    done = diffalign(*command, *options, "--reward", "own_reward:red", "--dry-run", "--out", "run")
    assert done.code == 0, done.err
    said = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in done.out.splitlines()}
    assert said["reward queries"] == str(queries) and said["runs"] == ("2" if command[0] == "find" else "1")
    assert said["learning"].endswith("s") and said["memory so far"].endswith("GB")
    assert not Path("run").exists() and not Path("runs").exists()
