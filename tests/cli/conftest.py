"""Running the command line inside the tests' process, and rewards that fail when told to."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from diffalign.cli import run

REWARDS = '''
from pathlib import Path

import numpy as np
import torch

calls = 0
fail_at, failure = None, None  # the call that fails, and how


def red(images, prompts):
    """Mean of the red channel."""
    global calls
    calls += 1
    rewards = 100 * images[:, 0].mean((1, 2))
    if fail_at is None or calls != fail_at:
        return rewards
    if failure == "nan":
        rewards[0] = torch.nan
        return rewards
    if failure == "shape":
        return rewards[:, None]
    if failure == "raise":
        raise OSError("no connection to the scorer")
    raise KeyboardInterrupt


def green(images, prompts):
    return images[:, 1].mean((1, 2)).tolist()


def slow(images, prompts):
    """Says in a file how often it was called, and takes its time."""
    import time

    with Path("calls.txt").open("a") as file:
        file.write("x")
    time.sleep(0.25)
    return red(images, prompts)


not_callable = 3
'''


@dataclass(frozen=True)
class Outcome:
    """Of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("rewards")
    (folder / "own_reward.py").write_text(REWARDS)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


@pytest.fixture
def workplace(tmp_path: Path, reward_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; the reward behaves."""
    import own_reward

    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    own_reward.calls, own_reward.fail_at, own_reward.failure = 0, None, None
    yield tmp_path


@pytest.fixture
def diffalign(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs a command line."""

    def command(*tokens: object) -> Outcome:
        capsys.readouterr()
        code = run([str(token) for token in tokens])
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="session")
def small(tiny_pipeline_folder: Path) -> list[object]:
    """Options of a run of `find` that takes a moment: 3 updates, 6 pictures a row."""
    return [
        *("--model", tiny_pipeline_folder, "--reward", "own_reward:red", "--num-steps", 2),
        *("--queries", 12, "--batch", 4, "--images", 6, "--batch-size", 4),
    ]


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the tracker "own" gets: name and folder, settings, step and numbers a round, and "finished"."""
    from accelerate import tracking

    calls: list[Any] = []

    class Tracker:
        requires_logging_directory = True

        def __init__(self, name: str, folder: Path) -> None:
            calls.append((name, str(folder)))

        def start(self) -> None:
            pass

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            calls.append(values)

        def log(self, values: dict[str, float], step: int) -> None:
            calls.append((step, values))

        def finish(self) -> None:
            calls.append("finished")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "own", Tracker)
    monkeypatch.setattr("diffalign.run.trackers.get_available_trackers", lambda: ["own"])
    return calls
