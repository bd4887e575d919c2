from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from diffalign.training import NoiseConfig
from torch import Tensor

from diffalign.artifacts import (
    CONFIG,
    FILES,
    LOCK,
    METRICS,
    STATE,
    RunFolder,
    WriteError,
    replacing,
    versions,
)
from diffalign.policies.noise import ArtifactError, NoiseDistribution

CONFIGURATION = {"prompt": "a dog", "queries": 12, "learning_rate": 1e-5}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", CONFIGURATION)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_config_is_read_as_it_was_written(folder: RunFolder) -> None:
    assert RunFolder.resume(folder.path).config() == CONFIGURATION
    assert yaml.safe_load((folder / CONFIG).read_text()) == CONFIGURATION


def test_a_dataclass_is_a_config(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, NoiseConfig(seed=3))
    assert NoiseConfig(**folder.config()) == NoiseConfig(seed=3)


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe", b"words"])
def test_a_corrupt_config_is_said(folder: RunFolder, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(ArtifactError, match="corrupt"):
        folder.config()


def test_a_run_is_not_lost_to_another(folder: RunFolder) -> None:
    (folder / METRICS).write_text("{}\n")
    before = tree(folder.path)
    with pytest.raises(ArtifactError, match=r"holds another run.*--resume.*--overwrite.*--out"):
        RunFolder.create(folder.path, {"prompt": "a cat"})
    assert tree(folder.path) == before
    RunFolder.create(folder.path, {"prompt": "a cat"}, overwrite=True)
    assert tree(folder.path).keys() == {CONFIG} and folder.config() == {"prompt": "a cat"}


def test_a_replacement_that_was_stopped_can_be_repeated(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / METRICS).write_text("{}\n")

    def stopped(path: Path, **more: bool) -> None:
        if path.name == METRICS:
            raise KeyboardInterrupt
        os.unlink(path)

    monkeypatch.setattr(Path, "unlink", stopped)
    with pytest.raises(KeyboardInterrupt):
        RunFolder.create(folder.path, {"prompt": "a cat"}, overwrite=True)
    monkeypatch.undo()
    RunFolder.create(folder.path, {"prompt": "a cat"}, overwrite=True)
    assert tree(folder.path).keys() == {CONFIG} and folder.config() == {"prompt": "a cat"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_run_is_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="is a file"):
        RunFolder.create(tmp_path / "file", {}, overwrite=overwrite)
    with pytest.raises(ArtifactError, match="not a run"):
        RunFolder.create(tmp_path / "folder", {}, overwrite=overwrite)
    with pytest.raises(ArtifactError, match="cannot make the folder"):
        RunFolder.create(tmp_path / "file" / "below", {}, overwrite=overwrite)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("left", [[], [CONFIG + ".partial"], [LOCK], [LOCK, CONFIG + ".partial"]])
def test_a_kill_before_a_run_began_leaves_a_folder_for_another(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text("prompt: a d")
    RunFolder.check(tmp_path)
    assert RunFolder.create(tmp_path, CONFIGURATION).config() == CONFIGURATION
    assert tree(tmp_path).keys() == {CONFIG}


def test_a_check_changes_nothing(tmp_path: Path, folder: RunFolder) -> None:
    before = tree(tmp_path)
    RunFolder.check(folder.path, overwrite=True)
    RunFolder.check(tmp_path / "new")
    with pytest.raises(ArtifactError, match="holds another run"):
        RunFolder.check(folder.path)
    assert tree(tmp_path) == before and not (tmp_path / "new").exists()


def test_overwriting_takes_away_what_was_said_of_the_old_run(folder: RunFolder) -> None:
    ours = {*FILES, "noise.safetensors.partial.partial", "pictures/seed-1-012.png", "pictures/seed0-grid.png"}
    mine = {"mine.txt", "best.png.old", "pictures/seed.png", "pictures/seedling-1.png", "x/noise.safetensors"}
    (folder / "pictures").mkdir()
    (folder / "x").mkdir()
    for name in ours | mine:
        (folder / name).write_text("old")
    RunFolder.create(folder.path, CONFIGURATION, overwrite=True)
    assert tree(folder.path).keys() == {CONFIG} | mine


LOCKING = (
    "import sys, time; from pathlib import Path; from diffalign.artifacts import RunFolder\n"
    "with RunFolder(Path(sys.argv[1])).lock():\n"
    "    print('locked', flush=True)\n"
    "    time.sleep(600)\n"
)


def test_a_folder_is_one_process_s(folder: RunFolder) -> None:
    pytest.importorskip("fcntl")
    other = subprocess.Popen(
        [sys.executable, "-c", LOCKING, str(folder.path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "locked\n"
        with pytest.raises(ArtifactError, match="another process is running in"), folder.lock():
            pass
        before = tree(folder.path)
        with pytest.raises(ArtifactError, match="another process is running in"):
            RunFolder.create(folder.path, {"prompt": "a cat"}, overwrite=True)
        assert tree(folder.path) == before
    finally:
        other.kill()
        other.communicate()
    with folder.lock():  # the kernel has let go of it
        assert (folder / LOCK).exists()
    assert not (folder / LOCK).exists()


def test_where_nobody_can_be_locked_out_runs_go_on(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffalign.artifacts as artifacts

    class Unsupported:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(*arguments: object) -> None:
            raise OSError(95, "Operation not supported")

    for module in (None, Unsupported):
        monkeypatch.setattr(artifacts, "fcntl", module)
        with folder.lock():
            assert tree(folder.path).keys() == {CONFIG}


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no run to resume"):
        RunFolder.resume(tmp_path)
    with pytest.raises(ArtifactError, match="no run to resume"):
        RunFolder.resume(tmp_path / "nowhere")


def state() -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {
        "x_T": torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        "empty": torch.empty(0, 4),
        "step": torch.tensor(3.0),
        "transposed": torch.arange(6.0).view(2, 3).mT,
    }
    return tensors, {"steps": "3"}


def test_state_is_read_as_it_was_written(folder: RunFolder) -> None:
    assert folder.load_state() is None
    tensors, metadata = state()
    folder.save_state(tensors, metadata)
    loaded, said = folder.load_state() or ({}, {})
    assert said == metadata and loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)


@pytest.mark.parametrize("length", [0, 4, 50, -1])
def test_a_truncated_state_is_said(folder: RunFolder, length: int) -> None:
    folder.save_state(*state())
    whole = (folder / STATE).read_bytes()
    (folder / STATE).write_bytes(whole[:length])
    with pytest.raises(ArtifactError, match="corrupt or truncated"):
        folder.load_state()


def test_a_pickle_is_never_read(folder: RunFolder) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(folder / "sprung"),)

    (folder / STATE).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ArtifactError):
        folder.load_state()
    (folder / "noise.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ArtifactError):
        NoiseDistribution.load(folder.path)
    assert not (folder / "sprung").exists()


def update(step: int, **more: object) -> dict[str, object]:
    figures = {"step": step, "queries": 2 * step, "rewards": [0.5, 1], "mean_norm": 0.1}
    return {**figures, "effective_components": 1, "kl_to_standard": 0.2, "seconds": 3, **more}


def test_metrics_are_lines(folder: RunFolder) -> None:
    assert folder.metrics() == []
    rows = [update(step, reward_mean=1 / (step + 1)) for step in range(1, 5)]
    for row in rows:
        folder.append_metrics(row)
    assert folder.metrics() == rows
    assert [json.loads(line) for line in (folder / METRICS).read_text().splitlines()] == rows


def test_a_line_that_a_kill_cut_short_is_dropped(folder: RunFolder) -> None:
    for step in (1, 2, 3):
        folder.append_metrics(update(step))
    with (folder / METRICS).open("a") as file:
        file.write('{"step": 4, "rew')
    assert [row["step"] for row in folder.metrics()] == [1, 2, 3]
    folder.truncate_metrics(2)
    folder.append_metrics(update(3))
    assert [row["step"] for row in folder.metrics()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([update(1), "cut", update(3)], r"corrupt in line 2 .*; mend or delete the line"),
        (
            [update(1), {"reward": 1}],
            "line 2: no step, queries, rewards, seconds",
        ),
        ([[1, 2]], "line 1: no step"),
        ([{**update(1), "step": None}], "line 1: no step;"),
        ([update(1), update(2, seconds="3")], "line 2: no seconds; mend or delete the line"),
    ],
)
def test_corrupt_metrics_are_said(folder: RunFolder, rows: list[object], said: str) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows).replace('"cut"', '{"ste')
    (folder / METRICS).write_text(lines)
    for read in (folder.metrics, lambda: folder.truncate_metrics(1)):
        with pytest.raises(ArtifactError, match=said):
            read()
    assert (folder / METRICS).read_text() == lines


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write() -> None:
        with replacing(path) as partial:
            partial.write_text("half of the n")
            raise OSError(28, "No space left on device")

    with pytest.raises(WriteError, match=r"No space left on device.*nothing that was there is lost"):
        write()
    assert tree(tmp_path) == {"file": b"old"}
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert tree(tmp_path) == {"file": b"new"}


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    script = (
        "import os, signal, sys; from pathlib import Path; from diffalign.artifacts import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)])
    assert done.returncode == -9 and path.read_text() == "old"


def test_a_full_disk_is_said(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffalign.artifacts as artifacts

    folder.save_state(*state())
    before = tree(folder.path)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifacts, "save_file", full)
    with pytest.raises(ArtifactError, match="No space left"):
        folder.save_state({"x": torch.zeros(1)}, {})
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ArtifactError, match="No space left"):
        folder.write_json("summary.json", {})
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ArtifactError, match="No space left"):
        folder.append_metrics({"step": 1})
    monkeypatch.undo()
    assert tree(folder.path) == before


def test_versions() -> None:
    assert versions()["torch"] == torch.__version__
    assert set(versions()) == {"diffalign", "torch", "diffusers", "transformers"}
