"""What holds of the runs of every method: their folders, what damages them, and what opens them again."""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from diffalign import NoiseDistribution, NoiseGenerator, load_artifact, open_artifact
from diffalign.artifacts import RunFolder
from diffalign.cli import run
from diffalign.files import ArtifactError, load_tensors, read_header, save_tensors
from diffalign.learners.result import SearchResult
from diffalign.run.weights import TunedWeights
from diffalign.settings.methods import METHODS
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling

#: Prompts and settings of runs that take a moment.
QUICK: Mapping[str, tuple[list[str], dict[str, object]]] = {
    "find": (["a dog"], {"--queries": 12, "--batch": 4, "--images": 3}),
    "anchors": (["a dog", "a cat"], {"--components": 8}),
    "noise-ppo": (["a dog", "a cat"], {"--hidden-size": 8}),
    "tune": (["a dog", "a cat"], {"--samples": 12, "--first-steps": 2, "--threshold": 0, "--rounds": 2}),
    "search": (["a dog"], {"--queries": 12, "--keep": 3}),
}
AMORTISED = {"--rounds": 2, "--prompts-per-round": 2, "--samples-per-prompt": 4}
#: What each leaves, beside what all leave.
RESULTS = {
    "find": "noise.safetensors",
    "anchors": "generator.safetensors",
    "noise-ppo": "generator.safetensors",
    "tune": "lora/pytorch_lora_weights.safetensors",
    "search": "noises.safetensors",
}
LEARNED = [method for method in METHODS if method != "search"]


@pytest.fixture(scope="session")
def quick(tiny_pipeline_folder: Path) -> Callable[..., list[object]]:
    """A command of a run that takes a moment."""

    def command(method: str, *more: object) -> list[object]:
        prompts, settings = QUICK[method]
        options: dict[object, object] = {
            **{"--model": tiny_pipeline_folder, "--reward": "own_reward:red", "--num-steps": 2},
            **{"--batch-size": 4, **settings},
            **(AMORTISED if method in ("anchors", "noise-ppo") else {}),
            **({} if method in ("search", "find") else {"--images": 3, "--check-every": 2}),
            **({} if method in ("search", "find") else {"--check-images": 2}),
        }
        options |= dict(zip(more[::2], more[1::2], strict=True))
        return [method, *prompts, *(word for option in options.items() for word in option)]

    return command


@pytest.fixture(scope="module", params=METHODS)
def finished(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    reward_folder: Path,
    quick: Callable[..., list[object]],
) -> tuple[str, Path]:
    """A method and the folder of a run of it, which nobody changes."""
    method, folder = request.param, tmp_path_factory.mktemp("finished") / "run"
    assert run([str(token) for token in quick(method, "--out", folder)]) == 0
    return method, folder


@pytest.fixture
def method(finished: tuple[str, Path], workplace: Path) -> str:
    """A method, of which a finished run is in the folder `run`."""
    shutil.copytree(finished[1], workplace / "run")
    return finished[0]


def figures(folder: Path) -> dict[str, Any]:
    """All that a run says, without what depends on time: its summary, its metrics and its result."""
    summary = json.loads((folder / "summary.json").read_text())
    for cost in [summary["cost"]] if "reward_queries" in summary["cost"] else summary["cost"].values():
        del cost["seconds"], cost["peak_memory_mb"]
    rows = RunFolder(folder).metrics()
    for row in rows:
        del row["seconds"], row["sampling_seconds"]
    (result,) = (folder / name for name in set(RESULTS.values()) if (folder / name).exists())
    metadata = {} if result.parent.name == "lora" else read_header(result)
    tensors = {name: tensor.tolist() for name, tensor in load_file(result).items()}
    return {**summary, "rows of metrics": rows, "tensors": tensors, "metadata": metadata}


def flip(path: Path) -> None:
    """Flips a bit of the last value of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def refused(done: Any, *said: str) -> None:
    """A mistake is said in a line."""
    assert done.code == 2 and "Traceback" not in done.err
    for words in said:
        assert words in done.err.splitlines()[-1] or words in done.err.splitlines()[-2]


def test_its_config_and_its_recorded_command_make_the_same_run(method: str, diffalign) -> None:
    whole = figures(Path("run"))
    command = shlex.split(whole["run"]["command"])
    assert command[:2] == ["diffalign", method]
    for again in ([method, "--config", "run/config.yaml"], command[1:]):
        assert diffalign(*again, "--out", "again", "--overwrite").code == 0
        assert figures(Path("again")) == whole
        assert Path("again/config.yaml").read_text() == Path("run/config.yaml").read_text()


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_summary_is_made_again(method: str, damage: str, diffalign) -> None:
    whole, summary = figures(Path("run")), Path("run/summary.json")
    if damage == "gone":
        summary.unlink()
    else:
        summary.write_text(summary.read_text()[:-20])
    done = diffalign(method, "--resume", "run")
    assert done.code == 0 and "is finished" not in done.err
    assert figures(Path("run")) == whole


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_result_is_refused_and_made_again(method: str, damage: str, diffalign) -> None:
    import own_reward

    whole, result = figures(Path("run")), Path("run", RESULTS[method])
    expected = "" if method == "tune" else read_header(result)["checksum"]
    if damage == "gone":
        result.unlink()
    elif damage == "cut":
        result.write_bytes(result.read_bytes()[:-3])
    elif method == "tune":
        pytest.skip("the format of diffusers' adapters has no checksum")
    else:
        flip(result)
    prompt = [] if method in ("find", "search") else ["--prompt", "a dog"]
    said = {"flipped": "does not match its checksum " + expected, "cut": str(result.parent), "gone": ""}
    refused(diffalign("generate", "run", "-n", 1, *prompt), said[damage])
    own_reward.calls = 0
    done = diffalign(method, "--resume", "run")
    assert done.code == 0 and "is finished" not in done.err
    assert figures(Path("run")) == whole
    assert diffalign("generate", "run", "-n", 1, *prompt).code == 0
    assert "is finished" in diffalign(method, "--resume", "run").err


def test_a_run_without_its_result_says_how_to_go_on(method: str, diffalign) -> None:
    result = Path("run", RESULTS[method])
    shutil.rmtree(result.parent) if result.parent.name == "lora" else result.unlink()
    for command in ("generate", "evaluate"):
        done = diffalign(command, "run")
        refused(done, f"the run in run is not finished; go on with it: diffalign {method} --resume run")
    assert diffalign(method, "--resume", "run").code == 0 and result.is_file()


def test_a_result_of_no_numbers_does_not_finish_a_run(method: str, diffalign) -> None:
    result = Path("run", RESULTS[method])
    with safe_open(result, "pt") as file:
        header = file.metadata()
    whole = load_file(result)
    save_file({name: tensor * torch.nan for name, tensor in whole.items()}, result, header)
    refused(diffalign("generate", "run", "-n", 1, "--prompt", "a dog"))
    done = diffalign(method, "--resume", "run")
    assert done.code == 0 and "is finished" not in done.err
    assert all(torch.equal(tensor, whole[name]) for name, tensor in load_file(result).items())


def test_a_damaged_state_is_refused_and_says_what_helps(method: str, diffalign) -> None:
    whole, state = figures(Path("run")), Path("run/state.safetensors")
    expected = read_header(state)["checksum"]
    flip(state)
    assert "is finished" in diffalign(method, "--resume", "run").err  # which needs no state
    Path("run/summary.json").unlink()
    before = {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()}
    stopped = diffalign(method, "--resume", "run")
    refused(
        stopped,
        f"state.safetensors is corrupt: its content does not match its checksum {expected}",
        "delete it to start the run again with --resume",
    )
    assert {file: file.read_bytes() for file in Path("run").rglob("*") if file.is_file()} == before
    state.unlink()
    assert diffalign(method, "--resume", "run").code == 0
    assert figures(Path("run")) == whole


def test_a_state_of_other_settings_is_refused(method: str, diffalign) -> None:
    Path("run/summary.json").unlink()
    config = Path("run/config.yaml")
    content = yaml.safe_load(config.read_text())
    other = {"find": "batch", "search": "keep", "tune": "window"}.get(method, "rounds")
    value = content[other]
    for change, said in (
        (
            {other: 1 + value},
            f"does not fit its config.yaml (the saved state is that of another learner: {other} "
            f"{value} then, {1 + value} now); undo the change there, or delete",
        ),
        ({"num_steps": 3}, "num steps '2' then, '3' now"),
        ({"reward": "own_reward:green"}, "reward 'own_reward:red' then, 'own_reward:green' now"),
    ):
        config.write_text(yaml.safe_dump({**content, **change}, sort_keys=False))
        stopped = diffalign(method, "--resume", "run")
        assert stopped.code == 2 and said in stopped.err and "go on with" not in stopped.err
    config.write_text(yaml.safe_dump({**content, "batch_size": 3}, sort_keys=False))
    assert diffalign(method, "--resume", "run").code == 0  # which changes nothing but time and memory


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_every_file_has_the_mode_that_the_umask_says(method: str, diffalign, quick) -> None:
    mask = 0o027  # of no other test, nor what a temporary file has
    more = {} if method == "search" else {"--keep": 1, "--check-every": 1, "--check-images": 2}
    with umask(mask):
        flags = [word for option in more.items() for word in option]
        assert diffalign(*quick(method, *flags, "--out", "x")).code == 0
        prompt = [] if method in ("find", "search") else ["--prompt", "a dog"]
        assert diffalign("generate", "x", "-n", 1, *prompt).code == 0
        assert diffalign("generate", "x", "-n", 1, "--frozen", *prompt).code == 0
        if method != "search":
            assert diffalign("evaluate", "x", "--images", 2, *prompt).code == 0
    modes = {file: file.stat().st_mode & 0o777 for file in Path("x").rglob("*")}
    assert len(modes) > 9
    for file, mode in modes.items():
        assert mode == (0o777 if file.is_dir() else 0o666) & ~mask, file


def test_what_a_kill_left_is_cleared(method: str, diffalign) -> None:
    names = {str(file.relative_to("run")) for file in Path("run").rglob("*")}
    Path("run/summary.json").unlink()
    for left in (".tmpA1b2C3", "summary.json.partial", f"{RESULTS[method].split('/')[0]}.partial"):
        if left == "lora.partial":
            Path("run", left).mkdir()
            left += "/half.safetensors"
        Path("run", left).write_text("half")
    Path("run/state.safetensors.partial").write_text("half")
    assert diffalign(method, "--resume", "run").code == 0
    assert {str(file.relative_to("run")) for file in Path("run").rglob("*")} == names


@pytest.mark.parametrize("writer", METHODS)
@pytest.mark.parametrize("reader", [*METHODS, "compare"])
def test_a_folder_of_another_method_is_refused(reader: str, writer: str, diffalign) -> None:
    row = METHODS[writer]
    plan = Plan(writer, ("a dog",), row.config(), row.evaluation(), Sampling(model="wrld"))
    RunFolder(Path("x")).begin(plan.mapping())
    done = diffalign(reader, "--resume", "x")
    assert done.code == 2
    if reader == writer:
        assert "unknown model 'wrld'" in done.err
    else:
        assert f"x/config.yaml was not written by diffalign {reader}" in done.err
        assert "go on with" not in done.err
    assert [file.name for file in Path("x").iterdir()] == ["config.yaml"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "fnd"}, "was not written by diffalign find but by diffalign fnd"),
        ({"method": None}, "was not written by diffalign find"),
        ({"querys": 3}, "unknown setting 'querys'"),
        ({"preset": "papr"}, "unknown preset 'papr'"),
        ({"queries": "many"}, "queries must be of the type int, not 'many'"),
        ({"queries": True}, "queries must be of the type int, not True"),
        ({"num_steps": 2.5}, "num_steps must be of the type int, not 2.5"),
        ({"baselines": 3}, "baselines must be of the type bool, not 3"),
        ({"prompt": ""}, "prompt must be text, not ''"),
        ({"prompt": ["a", "b"]}, "prompt must be text, not ['a', 'b']"),
        ({"reward": None}, "reward must be text, not None"),
        ({"device": 3}, "device must be of the type str, not 3"),
        ({"keep": 2, "check_every": 0}, "keep needs checks; give check_every too"),
        ({"tracker": "tensorbord"}, "unknown tracker 'tensorbord'"),
        ({"judge": "world-scen"}, "judge must be one of auto, none, world-scene, not 'world-scen'"),
    ],
)
def test_a_config_that_was_changed_for_the_worse_is_told(
    change: dict[str, Any], said: str, diffalign
) -> None:
    row = METHODS["find"]
    plan = Plan("find", ("a dog",), row.config(), row.evaluation(), Sampling())
    Path("x").mkdir()
    config = yaml.safe_dump({**plan.mapping(), **change}, sort_keys=False)
    Path("x/config.yaml").write_text(config)
    done = diffalign("find", "--resume", "x")
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert done.err.startswith("error: ") and len(done.err.splitlines()) <= 2
    assert [file.name for file in Path("x").iterdir()] == ["config.yaml"]
    assert Path("x/config.yaml").read_text() == config


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--config", "none.yaml", "a"], "cannot read the settings none.yaml"),
        (["a", "--prompts", "world/many"], "give prompts or --prompts, not both"),
        (["--prompts", "world/mny"], "did you mean 'world/many'?"),
        (["--prompts", "nowhere.txt"], "no prompt file 'nowhere.txt'"),
        ([], "no prompts; write what the pictures should show"),
        ([""], "the prompt is empty"),
        (["a \udcff dog"], "is no UTF-8 text"),
        (["a", " "], "the prompt is empty"),
        (["a", "--num-steps", "2.5"], "--num-steps must be a whole number, not 2.5"),
        (["a", "--num-steps", "two"], 'unable to convert "two" into int'),
        (["a", "--preset", "nope"], "unknown preset 'nope'"),
        (["a", "--tracker", "tensorbord"], "unknown tracker 'tensorbord'"),
        (["a", "--device", "tpu9"], "cannot use the device 'tpu9'"),
        (["a", "--judge", "jury"], "Choose from"),
        (["a", "--resume", "none"], "leave out PROMPT"),
        (["a", "--resume", "--overwrite"], "leave out --overwrite"),
    ],
)
@pytest.mark.parametrize("command", METHODS)
def test_a_mistake_is_said_in_a_line(command: str, line: list[str], said: str, diffalign) -> None:
    done = diffalign(command, *line)
    assert done.code == 2 and said in done.err and "Traceback" not in done.err
    assert done.err.startswith("error: ") and list(Path().iterdir()) == []


def test_what_was_learned_is_opened_by_its_folder(method: str, tiny_pipeline: Any) -> None:
    kinds = {"find": NoiseDistribution, "search": SearchResult, "tune": None}
    kind = kinds.get(method, NoiseGenerator)
    if kind is None:
        with pytest.raises(ArtifactError, match="run holds tuned weights, which open_artifact opens"):
            load_artifact("run")
    else:
        found = load_artifact("run")
        assert isinstance(found, kind)
        assert found.metadata["reward"] == "own_reward:red" and int(found.metadata["queries"]) > 0
        assert isinstance(load_artifact(Path("run", RESULTS[method]), tiny_pipeline), kind)
    opened = open_artifact("run")
    assert isinstance(opened.artifact, kind or TunedWeights)
    assert opened.sampler.num_steps == 2 and opened.metadata["reward"] == "own_reward:red"
    latents = opened.latents("a dog", 2, seed=0)
    tuned = opened.sampler(latents, "a dog")
    with opened.frozen():
        frozen = opened.sampler(latents, "a dog")
    assert torch.equal(tuned, frozen) == (method != "tune")
    standard = NoiseDistribution.standard((4, 8, 8)).sample(2, 0)
    assert torch.equal(latents, standard) == (method == "tune")
    with pytest.raises(ArtifactError, match="there is no nowhere"):
        load_artifact("nowhere")


def test_fresh_pictures_and_figures_of_what_was_learned(method: str, diffalign) -> None:
    """Any prompt's, of what was learned for all; the run's own figures with its own pictures' seed."""
    if method == "search":
        pytest.skip("which has nothing fresh to show: see test_search.py")
    prompt = [] if method == "find" else ["--prompt", "a bird"]
    assert diffalign("generate", "run", "-n", 2, *prompt).code == 0
    assert diffalign("generate", "run", "-n", 2, "--frozen", *prompt).code == 0
    inside = "" if method == "find" else "a-bird"
    tuned, frozen = (Path("run", kind, inside, "seed0-001.png") for kind in ("pictures", "frozen"))
    assert tuned.read_bytes() != frozen.read_bytes()
    done = diffalign("evaluate", "run", "--images", 3, "--batch-size", 4, *prompt)
    assert done.code == 0 and "gain: learned less frozen" in done.out
    name = "evaluation.json" if method == "find" else "evaluation-a-bird.json"
    found, whole = json.loads(Path("run", name).read_text()), figures(Path("run"))
    if method == "find":
        assert found["rows"]["tuned"] == whole["rows"]["tuned"] and found["gain"] == whole["gain"]
    else:
        assert found["prompt"] == "a bird"
        refused(diffalign("generate", "run"), "was learned for all prompts; say with --prompt")
        refused(diffalign("evaluate", "run", "--prompt", " "), "say with --prompt")
        refused(diffalign("evaluate", "run", "--prompt", "a", "--prompts", "b.txt"), "not both")
        Path("some.txt").write_text("a bird\na fish\n")
        assert diffalign("evaluate", "run", "--images", 3, "--prompts", "some.txt").code == 0
        several = json.loads(Path("run/evaluation-2-prompts.json").read_text())
        assert several["n"] == 6 and [row["prompt"] for row in several["by_prompt"]] == ["a bird", "a fish"]
    assert found["cost"]["tuned"]["reward_queries"] == whole["cost"]["tuned"]["reward_queries"]
    assert found["rows"]["tuned"]["reward"]["mean"] != found["rows"]["baseline"]["reward"]["mean"]


def test_what_was_learned_for_another_model_is_refused(
    method: str, diffalign, other_pipeline_folder: Path
) -> None:
    prompt = [] if method in ("find", "search") else ["--prompt", "a dog"]
    files = sorted(Path("run").rglob("*"))
    done = diffalign("generate", "run", "-n", 1, *prompt, "--model", other_pipeline_folder)
    assert done.code == 2 and "whose fingerprint is" in done.err
    assert sorted(Path("run").rglob("*")) == files


def test_what_was_learned_before_fingerprints_said_more_is_opened_and_gone_on_with(
    method: str, diffalign, other_pipeline_folder: Path
) -> None:
    whole = figures(Path("run"))
    for name in {"state.safetensors", RESULTS[method]}:
        file = Path("run", name)
        if method == "tune" and name != "state.safetensors":  # diffusers' own, without a fingerprint
            continue
        tensors, header = load_tensors(file)
        header["model_fingerprint"] = header["model_fingerprint"].partition("-")[0]
        save_tensors(file, tensors, header, read_header(file)["format"])
    prompt = [] if method in ("find", "search") else ["--prompt", "a dog"]
    done = diffalign("generate", "run", "-n", 1, *prompt)
    assert done.code == 0 and "warn" not in done.err
    done = diffalign("generate", "run", "-n", 1, *prompt, "--model", other_pipeline_folder)
    assert done.code == 2 and "it has another denoiser" in done.err
    Path("run/summary.json").unlink()
    done = diffalign(method, "--resume", "run")
    assert done.code == 0, done.err
    assert figures(Path("run")) == whole


def test_a_tracker_gets_every_round(method: str, diffalign, quick, tracked) -> None:
    def rounds() -> list[tuple[int, float, float]]:
        calls = [call for call in tracked if isinstance(call, tuple) and call[0] != "logs"]
        return [(step, values["reward_mean"], values["queries"]) for step, values in calls]

    assert diffalign(*quick(method, "--tracker", "own", "--out", "x")).code == 0
    rows = [(row["round"], row["reward_mean"], row["queries"]) for row in RunFolder(Path("x")).metrics()]
    assert tracked[0] == ("logs", "x") and tracked[1]["seed"] == 0 and tracked[-1] == "finished"
    assert rounds() == rows and len(rows) > 1 and len(tracked) == len(rows) + 3
    import own_reward

    tracked.clear()
    own_reward.calls, own_reward.fail_at = 0, 3
    assert diffalign(*quick(method, "--tracker", "own", "--out", "y")).code == 130
    assert tracked[-1] == "finished"  # whatever ends it
    own_reward.fail_at = None
    assert diffalign(method, "--resume", "y").code == 0
    assert rounds() == rows


@pytest.mark.parametrize("command", LEARNED)
def test_held_out_checks_earlier_results_and_search_at_equal_cost(command: str, diffalign, quick) -> None:
    more = ["--check-every", 1, "--check-images", 2, "--keep", 1, "--images", 3]
    Path("held.txt").write_text("a bird\n")
    if command != "find":
        more += ["--held-out", "held.txt"]
    done = diffalign(*quick(command, *more), "--baselines", "--out", "x")
    assert done.code == 0, done.err
    rows = RunFolder(Path("x")).metrics()
    assert all(set(row["held_out"]) == {"reward", "judged", "distance"} for row in rows)
    assert all("alarm" in row for row in rows)
    last = f"round-{len(rows):05d}"
    assert [file.name for file in Path("x/checkpoints").iterdir()] == [last]
    assert Path("x/checkpoints", last, RESULTS[command]).is_file()
    whole = json.loads(Path("x/summary.json").read_text())
    assert set(whole["rows"]) == {"baseline", "best_of_n", "tuned"}
    assert whole["prompt"] == ("a dog" if command == "find" else "a bird")
    cost = whole["cost"]
    # as many pictures as learning and its fresh ones took
    assert cost["best_of_n"]["reward_queries"] == cost["tuned"]["reward_queries"] + 3
    assert "best of N" in done.out

    import own_reward

    own_reward.calls, own_reward.fail_at = 0, 5
    assert diffalign(*quick(command, *more), "--baselines", "--out", "y").code == 130
    own_reward.fail_at = None
    assert diffalign(command, "--resume", "y").code == 0
    assert figures(Path("y")) == {**figures(Path("x")), "run": figures(Path("y"))["run"]}
    assert [file.name for file in Path("y/checkpoints").iterdir()] == [last]


@pytest.mark.parametrize("command", ["anchors", "noise-ppo", "tune"])
def test_prompts_are_words_a_set_or_a_file(command: str, diffalign, quick) -> None:
    Path("mine.txt").write_text("a dog\na cat\na dog\n")
    words = quick(command, "--out", "x")
    assert diffalign(*words).code == 0
    assert diffalign(command, "--prompts", "mine.txt", *words[3:-1], "y").code == 0
    one, other = figures(Path("x")), figures(Path("y"))
    assert one.pop("run")["command"] != other.pop("run")["command"]
    assert one == other
    assert yaml.safe_load(Path("x/config.yaml").read_text())["prompts"] == ["a dog", "a cat"]
    assert yaml.safe_load(Path("y/config.yaml").read_text())["prompts"] == "mine.txt"
