import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from diffalign.artifacts import LOCK, RunFolder
from diffalign.files import (
    CONFIG,
    METRICS,
    NOISE,
    REPORT,
    STATE,
    SUMMARY,
    WRITTEN,
    ArtifactError,
    WriteError,
    load_tensors,
    replacing,
    replacing_folder,
    save_tensors,
    versions,
    write_json,
)
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.find import FindConfig

CONFIGURATION = {"prompt": "a dog", "queries": 12, "learning_rate": 1e-5}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run").begin(CONFIGURATION)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_config_is_read_as_it_was_written(folder: RunFolder) -> None:
    assert RunFolder.resume(folder.path).config() == CONFIGURATION
    assert yaml.safe_load((folder / CONFIG).read_text()) == CONFIGURATION


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path).begin(asdict(FindConfig(seed=3)))
    assert FindConfig(**folder.config()) == FindConfig(seed=3)


@pytest.mark.parametrize("content", [b"", b"a: [", b"\xff\xfe", b"words"])
def test_a_corrupt_config_is_said(folder: RunFolder, content: bytes) -> None:
    (folder / CONFIG).write_bytes(content)
    with pytest.raises(ArtifactError, match="corrupt"):
        folder.config()


def test_a_run_is_not_lost_to_another(folder: RunFolder) -> None:
    (folder / METRICS).write_text("{}\n")
    before = tree(folder.path)
    with pytest.raises(ArtifactError, match=r"holds another run.*--resume.*--overwrite.*--out"):
        RunFolder(folder.path).begin({"prompt": "a cat"})
    assert tree(folder.path) == before
    RunFolder(folder.path, True).begin({"prompt": "a cat"})
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
        RunFolder(folder.path, True).begin({"prompt": "a cat"})
    monkeypatch.undo()
    RunFolder(folder.path, True).begin({"prompt": "a cat"})
    assert tree(folder.path).keys() == {CONFIG} and folder.config() == {"prompt": "a cat"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_run_is_never_overwritten(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(ArtifactError, match="is a file"):
        RunFolder(tmp_path / "file", overwrite).begin({})
    with pytest.raises(ArtifactError, match="not a run"):
        RunFolder(tmp_path / "folder", overwrite).begin({})
    with pytest.raises(ArtifactError, match="cannot make the folder"):
        RunFolder(tmp_path / "file" / "below", overwrite).begin({})
    assert tree(tmp_path) == before


@pytest.mark.parametrize("left", [[], [CONFIG + ".partial"], [LOCK], [LOCK, CONFIG + ".partial"]])
def test_a_kill_before_a_run_began_leaves_a_folder_for_another(tmp_path: Path, left: list[str]) -> None:
    for name in left:
        (tmp_path / name).write_text("prompt: a d")
    RunFolder(tmp_path).check()
    assert RunFolder(tmp_path).begin(CONFIGURATION).config() == CONFIGURATION
    assert tree(tmp_path).keys() == {CONFIG}


def test_a_check_changes_nothing(tmp_path: Path, folder: RunFolder) -> None:
    before = tree(tmp_path)
    RunFolder(folder.path, True).check()
    RunFolder(tmp_path / "new").check()
    with pytest.raises(ArtifactError, match="holds another run"):
        RunFolder(folder.path).check()
    assert tree(tmp_path) == before and not (tmp_path / "new").exists()


def test_overwriting_takes_away_what_was_said_of_the_old_run(folder: RunFolder) -> None:
    ours = {
        *WRITTEN,
        "noise.safetensors.partial.partial",
        "pictures/seed-1-012.png",
        "pictures/seed0-grid.png",
    }
    mine = {"mine.txt", "best.png.old", "pictures/seed.png", "pictures/seedling-1.png", "x/noise.safetensors"}
    (folder / "pictures").mkdir()
    (folder / "x").mkdir()
    for name in ours | mine:
        (folder / name).write_text("old")
    RunFolder(folder.path, True).begin(CONFIGURATION)
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
            RunFolder(folder.path, True).begin({"prompt": "a cat"})
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
    return tensors, {"rounds": "3"}


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
    with pytest.raises(ArtifactError, match=r"corrupt, truncated .*; delete it to start the run again"):
        folder.load_state()


def test_no_flipped_bit_is_read(folder: RunFolder) -> None:
    """Not in the header, whose parts have errors of their own, and not in a value, which is told by the
    checksum."""
    folder.save_state(*state())
    path, whole = folder / STATE, (folder / STATE).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    checksum = json.loads(whole[8:header])["__metadata__"]["checksum"]
    for place in [*range(header), *range(header, len(whole), 97), len(whole) - 1]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        with pytest.raises(ArtifactError) as refused:
            folder.load_state()
        assert "\n" not in str(refused.value) and str(path) in str(refused.value)
        if place >= header:
            assert f"{path} is corrupt: its content does not match its checksum {checksum}" in str(
                refused.value
            )
    path.write_bytes(whole)
    assert folder.load_state() is not None


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    save_tensors(tmp_path / "x", {"a": torch.zeros(1)}, {"b": "c"}, "diffalign.noise/1")
    assert load_tensors(tmp_path / "x")[1] == {"b": "c"}
    with pytest.raises(ArtifactError, match=r"of the format 'diffalign.noise/1', not 'diffalign.noise/2'"):
        NoiseDistribution.load(tmp_path / "x")
    with pytest.raises(ArtifactError, match=r"there is no safetensors file .*y"):
        load_tensors(tmp_path / "y")
    with pytest.raises(ArtifactError, match=r"there is no noise file .*y"):
        NoiseDistribution.load(tmp_path / "y")


def test_a_file_of_what_are_no_numbers_is_refused(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(2), "b": torch.tensor([1.0, torch.nan]), "c": torch.tensor([3])}
    save_tensors(tmp_path / "x", tensors, {}, "diffalign.noise/1")
    with pytest.raises(ArtifactError, match=r"x holds values that are no numbers \(b\); learn again"):
        load_tensors(tmp_path / "x")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_a_file_has_the_mode_that_the_umask_says(tmp_path: Path, mask: int) -> None:
    """safetensors' own writer would make it private."""
    before = os.umask(mask)
    try:
        folder = RunFolder(tmp_path / "run").begin(CONFIGURATION)
        folder.save_state(*state())
        folder.append_metrics(line(1))
        folder.truncate_metrics(1)
        write_json(folder / SUMMARY, {})
        NoiseDistribution.standard((4, 8, 8)).save(folder / NOISE)
        with replacing_folder(folder / "lora") as partial:
            (partial / "inside").mkdir()
            save_tensors(partial / "inside" / "weights.safetensors", {"a": torch.zeros(1)}, {}, "x")
        with folder.lock():
            modes = {file.name: file.stat().st_mode & 0o777 for file in folder.path.rglob("*")}
    finally:
        os.umask(before)
    assert {name: mode for name, mode in modes.items() if name in ("lora", "inside")} == dict.fromkeys(
        ("lora", "inside"), 0o777 & ~mask
    )
    files = {CONFIG, STATE, METRICS, SUMMARY, NOISE, "weights.safetensors", LOCK}
    assert {name: modes[name] for name in files} == dict.fromkeys(files, 0o666 & ~mask)


def test_what_a_killed_writer_left_is_cleared(folder: RunFolder) -> None:
    left, mine = {".tmpAb3dEf", ".tmp123456"}, {".tmp", ".tmpfile", "tmp123456"}
    for name in left | mine:
        (folder / name).write_text("x")
    with folder.lock():
        assert tree(folder.path).keys() == {CONFIG, LOCK} | mine
    (folder / ".tmpAb3dEf").write_text("x")
    RunFolder(folder.path, True).begin(CONFIGURATION)
    assert tree(folder.path).keys() == {CONFIG} | mine


def test_a_run_is_finished_when_its_figures_and_its_result_are_whole(folder: RunFolder) -> None:
    noise = NoiseDistribution.standard((4, 8, 8))

    def finish() -> None:
        noise.save(folder / NOISE)
        write_json(folder / SUMMARY, {"schema": "x"})
        (folder / REPORT).write_text("x")

    assert not folder.finished()
    finish()
    assert folder.finished()
    for name in (NOISE, SUMMARY, REPORT):
        (folder / name).unlink()
        assert not folder.finished()
        finish()
    for content in (b"", b"[]", b"{", b"\xff"):
        (folder / SUMMARY).write_bytes(content)
        assert not folder.finished()
    finish()
    whole = (folder / NOISE).read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        (folder / NOISE).write_bytes(damaged)
        assert not folder.finished()


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


def line(round: int, **more: object) -> dict[str, object]:
    figures = {"round": round, "queries": 2 * round, "rewards": [0.5, 1], "mean_norm": 0.1}
    return {**figures, "denoiser_forwards": 8, "seconds": 3, **more}


def test_metrics_are_lines(folder: RunFolder) -> None:
    assert folder.metrics() == []
    rows = [line(round, reward_mean=1 / (round + 1)) for round in range(1, 5)]
    for row in rows:
        folder.append_metrics(row)
    assert folder.metrics() == rows
    assert [json.loads(line) for line in (folder / METRICS).read_text().splitlines()] == rows


def test_a_line_that_a_kill_cut_short_is_dropped(folder: RunFolder) -> None:
    for round in (1, 2, 3):
        folder.append_metrics(line(round))
    with (folder / METRICS).open("a") as file:
        file.write('{"round": 4, "rew')
    assert [row["round"] for row in folder.metrics()] == [1, 2, 3]
    folder.truncate_metrics(2)
    folder.append_metrics(line(3))
    assert [row["round"] for row in folder.metrics()] == [1, 2, 3]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([line(1), "cut", line(3)], r"corrupt in line 2 .*; put the file back"),
        (
            [line(1), {"reward": 1}],
            "line 2: no round, queries, rewards, seconds, denoiser_forwards; put",
        ),
        ([[1, 2]], "line 1: no round"),
        ([{**line(1), "round": None}], "line 1: no round;"),
        ([line(1), line(2, seconds="3")], "line 2: no seconds; put the file back"),
    ],
)
def test_corrupt_metrics_are_said(folder: RunFolder, rows: list[object], said: str) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows).replace('"cut"', '{"rou')
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
        "import os, signal, sys; from pathlib import Path; from diffalign.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as file:\n"
        "    file.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)])
    assert done.returncode == -9 and path.read_text() == "old"


def test_a_full_disk_is_said(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffalign.files as files

    folder.save_state(*state())
    before = tree(folder.path)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "save_file", full)
    with pytest.raises(ArtifactError, match="No space left"):
        folder.save_state({"x": torch.zeros(1)}, {})
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_json(folder / "summary.json", {})
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(ArtifactError, match="No space left"):
        folder.append_metrics({"round": 1})
    monkeypatch.undo()
    assert tree(folder.path) == before


def test_versions() -> None:
    assert versions()["torch"] == torch.__version__
    assert set(versions()) == {"diffalign", "torch", "diffusers", "transformers"}


def test_tuned_weights_that_are_cut_off_do_not_finish_a_run(folder: RunFolder) -> None:
    write_json(folder / SUMMARY, {})
    (folder / REPORT).write_text("x")
    (folder / "lora").mkdir()
    assert not folder.finished()
    weights = folder / "lora" / "pytorch_lora_weights.safetensors"
    save_tensors(weights, {"a": torch.zeros(8)}, {}, "x")
    assert folder.finished()
    weights.write_bytes(weights.read_bytes()[:-1])
    assert not folder.finished()
