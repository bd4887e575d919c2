"""A kill between any two operations on files: what was there is there, or what was to come.

After it nothing more is done, not even what `finally` would: as SIGKILL does it.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diffalign import artifacts, files
from diffalign.artifacts import RunFolder, write_rows
from diffalign.evaluation.sources import read_source
from diffalign.files import replacing_folder, write_json
from diffalign.learners.result import SearchResult
from diffalign.run import session as sessions
from diffalign.run.asked import Asked
from diffalign.run.session import Session
from diffalign.settings.methods import METHODS
from diffalign.settings.plan import Plan
from diffalign.settings.sampling import Sampling
from diffalign.study.questions import Design
from diffalign.study.votes import Votes, create
from tests.contracts.tables import LATENT, LEARNERS, METADATA, NOISE_POLICIES, PROMPTS, make_learner
from tests.damage.kinds import PNG
from tests.report.test_html import SUMMARY
from tests.toys import half

#: Of what a Python process does to files, all but writing itself, which is into partial files.
CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree"}
CHANGES |= {"sqlite3.connect", "test.write"}


class Killed(BaseException):
    """It is."""


class Killer:
    """Kills at the operation number `left`, counted from 0, on what is in a folder; and at each after it."""

    def __init__(self) -> None:
        self.folder, self.left = "", -1
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or event not in CHANGES or not str(arguments[0]).startswith(self.folder):
            return
        self.left -= 1
        if self.left < 0:
            raise Killed

    @contextmanager
    def at(self, number: int, folder: Path) -> Iterator[None]:
        self.folder, self.left = str(folder), number
        try:
            yield
        finally:
            self.folder = ""


@pytest.fixture(scope="module")
def killer() -> Killer:
    return Killer()


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations that Python does not tell of by itself."""

    def save(tensors: Any, file: Path, header: Any = None) -> None:
        Path(file).write_bytes(b"half of it")
        sys.audit("test.write", str(file))
        save_file(tensors, file, header)

    def sync(descriptor: int) -> None:
        sys.audit("test.write", os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(files, "save_file", save)
    monkeypatch.setattr(os, "fsync", sync)


def tree(folder: Path) -> dict[str, bytes]:
    """What is in a folder, the bytes of each file sorted: a header's have another order each time."""
    inside = {str(file.relative_to(folder)): file for file in folder.rglob("*") if file.is_file()}
    return {name: bytes(sorted(file.read_bytes())) for name, file in inside.items()}


def noise(path: Path, new: bool) -> None:
    policy = NOISE_POLICIES["mixture" if new else "noise"]
    policy.make()().save(path / files.NOISE)


def generator(path: Path, new: bool) -> None:
    made: Any = NOISE_POLICIES["gaussian" if new else "anchors"].make()
    made.save(path / files.GENERATOR)


def noises(path: Path, new: bool) -> None:
    rewards = torch.full((2,), float(new))
    result = SearchResult(torch.zeros(2, *LATENT), torch.empty(0), rewards, (0, 1), METADATA)
    result.save(path / files.NOISES)


def weights(path: Path, new: bool) -> None:
    with replacing_folder(path / files.LORA) as partial:
        for name in ("one", "two"):
            files.save_file({name: torch.full((2,), float(new))}, partial / f"{name}.safetensors")


def state(path: Path, new: bool) -> None:
    RunFolder(path).save_state({"x": torch.full((2,), float(new))}, {"rounds": str(int(new))})


def config(path: Path, new: bool) -> None:
    RunFolder(path).write_config({"method": "find", "seed": int(new)})


def rows(path: Path, new: bool) -> None:
    write_rows(path / files.METRICS, [{"round": number} for number in range(1 + new)])


def summary(path: Path, new: bool) -> None:
    write_json(path / files.SUMMARY, {**SUMMARY, "n": int(new)})


SAVES: Mapping[str, Callable[[Path, bool], None]] = {
    save.__name__: save for save in (noise, generator, noises, weights, state, config, rows, summary)
}


@pytest.mark.parametrize("name", SAVES)
def test_what_is_saved_is_the_old_or_the_new(name: str, tmp_path: Path, killer: Killer) -> None:
    save, before, after = SAVES[name], tmp_path / "before", tmp_path / "after"
    for folder, news in ((before, [False]), (after, [False, True])):
        folder.mkdir()
        for new in news:
            save(folder, new)
    old, new = tree(before), tree(after)
    assert old != new and not any(files.PARTIAL in file for file in new)
    number = 0
    while True:
        path = tmp_path / "killed"
        shutil.copytree(before, path)
        try:
            with killer.at(number, path):
                save(path, True)
        except Killed:
            left = {file: data for file, data in tree(path).items() if files.PARTIAL not in file}
            gone = [{}] if name == "weights" else []  # between two renames, of a folder
            assert left in [old, new, *gone], number
            save(path, True)
        else:
            break
        assert tree(path) == new, number
        shutil.rmtree(path)
        number += 1
    assert number >= 3


def test_a_run_begins_after_a_kill_at_its_beginning(
    tmp_path: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "fcntl", None)  # the kernel takes a lock from the dead, which this is not
    number, path = 0, tmp_path / "run"
    while True:
        try:
            with killer.at(number, path):
                RunFolder(path).begin({"method": "find", "seed": 1})
        except Killed:
            again = RunFolder(path, overwrite=(path / files.CONFIG).exists())
            assert again.begin({"method": "find", "seed": 2}).config()["seed"] == 2
            assert not any(files.PARTIAL in file for file in tree(path))
        else:
            break
        shutil.rmtree(path)
        number += 1
    assert number >= 5


def test_a_study_is_there_or_not(tmp_path: Path, killer: Killer) -> None:
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        (folder / "dog").mkdir(parents=True)
        for number in range(2):
            (folder / "dog" / f"{number}.png").write_bytes(PNG)
    sources = [read_source(str(folder)) for folder in folders]
    counts = {prompt: len(pictures) for prompt, pictures in sources[0].pictures.items()}
    design = Design("pairs", tuple(s.name for s in sources), tuple(counts), tuple(counts.values()))
    number, path = 0, tmp_path / "study"
    while True:
        try:
            with killer.at(number, path):
                create(path, design, sources)
        except Killed:
            if (path / "study.sqlite").exists():
                Votes(path).close()
                shutil.rmtree(path)
        else:
            break
        number += 1
    assert number >= 4
    Votes(path).close()
    assert {file.name for file in path.iterdir()} == {"study.sqlite"}


class Silent:
    """A progress that nobody hears of."""

    def phase(self, name: str, total: int, done: int = 0) -> nullcontext[None]:
        return nullcontext()

    def advance(self, pictures: int) -> None: ...

    def reward(self, mean: float, best: float) -> None: ...

    def warn(self, warning: str) -> None: ...


#: Of two rounds each.
SHORT: Mapping[str, dict[str, int]] = {
    "find": {"queries": 8},
    "noise-ppo-running": {"rounds": 2, "prompts_per_round": 2, "samples_per_prompt": 2},
    "tune-ppo": {"rounds": 2, "samples": 6},
    "zero-order": {"queries": 16},
}


@pytest.mark.parametrize("name", SHORT)
def test_a_run_that_is_killed_goes_on_to_the_same_result(
    name: str, tmp_path: Path, killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is saved, its prompts are checked, and what was learned is kept, after each round."""
    checked = {"reward": 0.0, "judged": None, "distance": None}, torch.zeros(2, 3, 8, 8)
    monkeypatch.setattr(sessions, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(sessions, "check_held_out", lambda *_: checked)
    method = LEARNERS[name].method

    def learn(path: Path) -> None:
        learner, evaluation = make_learner(name, **SHORT[name]), METHODS[method].evaluation()
        if method != "search":
            evaluation = replace(evaluation, check_every=1, keep=1)
        plan = Plan(method, PROMPTS, learner.config, evaluation, Sampling())
        setup: Any = SimpleNamespace(reward=half, reward_name="half", memory=None)
        session = Session(RunFolder(path), Asked(plan, PROMPTS, PROMPTS), setup, learner)
        session.learn(Silent())
        session.spent()
        learner.save(path)

    def outcome(path: Path) -> tuple[Any, ...]:
        tensors, strings = files.load_tensors(path / files.STATE)
        rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in RunFolder(path).metrics()]
        left = {file for file in tree(path) if files.PARTIAL not in file}
        return {key: tensor.tolist() for key, tensor in tensors.items()}, strings, rows, left

    whole = tmp_path / "whole"
    whole.mkdir()
    learn(whole)
    assert len(outcome(whole)[2]) >= 2
    number, path = 0, tmp_path / "killed"
    while True:
        path.mkdir()
        try:
            with killer.at(number, path):
                learn(path)
        except Killed:
            learn(path)
        else:
            break
        assert outcome(path) == outcome(whole), number
        shutil.rmtree(path)
        number += 1
    assert number >= 20
