"""One batch is scored while the next is made."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from diffalign.rewards.overlap import overlapped


def slowly(batch: int) -> int:
    """A reward that waits."""
    time.sleep(0.05)
    return 10 * batch


def test_every_batch_comes_with_its_scores_in_order() -> None:
    assert list(overlapped(range(5), slowly)) == [(0, 0), (1, 10), (2, 20), (3, 30), (4, 40)]
    assert list(overlapped(range(5), lambda batch: batch)) == [(i, i) for i in range(5)]
    assert list(overlapped([], slowly)) == []


def test_scoring_takes_no_time_of_its_own() -> None:
    def made() -> Iterator[int]:
        for batch in range(8):
            time.sleep(0.05)
            yield batch

    began = time.perf_counter()
    list(overlapped(made(), slowly))
    took = time.perf_counter() - began
    assert 0.45 < took < 0.7  # 8 made, the first and the last scored on their own; one after the other 0.8


def test_a_reward_that_computes_stays_in_the_thread_that_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    if torch.accelerator.is_available():
        pytest.skip("with an accelerator all rewards overlap")

    def named(batch: int) -> str:
        slowly(batch)
        return threading.current_thread().name

    own = threading.current_thread().name
    names = [name for _, name in overlapped(range(4), named)]
    assert names[0] == own and own not in names[1:] and len(set(names[1:])) == 1
    monkeypatch.setattr(time, "thread_time", time.perf_counter)  # as if it computed all the while
    assert {name for _, name in overlapped(range(4), named)} == {own}


def test_at_most_two_batches_are_held() -> None:
    made: list[int] = []

    def batches() -> Iterator[int]:
        for batch in range(6):
            made.append(batch)
            yield batch

    for batch, _ in overlapped(batches(), slowly):
        assert len(made) - batch <= 2


def test_an_error_ends_it_before_more_is_made() -> None:
    made: list[int] = []

    def batches() -> Iterator[int]:
        for batch in range(9):
            made.append(batch)
            yield batch

    def failing(batch: int) -> int:
        slowly(batch)
        if batch == 2:
            raise KeyError("lost")
        return batch

    found = []
    with pytest.raises(KeyError, match="lost"):
        for batch, _ in overlapped(batches(), failing):
            found.append(batch)
    assert found == [0, 1] and len(made) <= 4


def test_other_threads_keep_their_cores() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        counts = [
            count
            for _, count in overlapped(range(3), lambda batch: slowly(batch) * 0 + torch.get_num_threads())
        ]
        assert torch.get_num_threads() == 2
        if not torch.accelerator.is_available():
            assert counts == [2, 1, 1]
        with_later: list[int] = []
        later = threading.Thread(target=lambda: with_later.append(torch.get_num_threads()))
        later.start()
        later.join()
        assert with_later == [2]
    finally:
        torch.set_num_threads(threads)


def test_what_was_left_is_waited_for() -> None:
    inside, most = [0], [0]

    def counting(batch: int) -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.2 if batch else 0.02)
        inside[0] -= 1
        return batch

    def batches() -> Iterator[int]:
        yield from (0, 1)
        raise MemoryError("of the sampler")

    with pytest.raises(MemoryError):
        list(overlapped(batches(), counting))
    assert list(overlapped(range(3), counting)) == [(0, 0), (1, 1), (2, 2)]
    assert most[0] == 1


@pytest.mark.parametrize("how", ["time.sleep(600)", "while True: matrix @ matrix"])
def test_a_reward_that_hangs_does_not_keep_the_command(how: str, tmp_path: Path) -> None:
    """Ctrl-C ends it with its own code, though a thread waits or computes."""
    (tmp_path / "hanging.py").write_text(f"""
import time
import torch
calls, matrix = 0, torch.rand(300, 300)

def reward(images, prompts):
    global calls
    calls += 1
    if calls == 1:
        time.sleep(0.3)
        return images.mean((1, 2, 3))
    print("hangs", flush=True)
    {how}
""")
    options = ["--queries", "40", "--num-steps", "1", "--batch-size", "8", "--reward", "hanging:reward"]
    set_by_tests = ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY", "TQDM_DISABLE")
    environment = {name: value for name, value in os.environ.items() if name not in set_by_tests}
    process = subprocess.Popen(
        [sys.executable, "-m", "diffalign", "--threads", "1", "search", "a dog", *options],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("hangs"):
            break
    time.sleep(0.3)
    began = time.perf_counter()
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    finally:
        process.kill()
    assert process.returncode == 130 and time.perf_counter() - began < 20
    assert process.stderr is not None
    # nothing else, such as the libraries' loading bars or advice
    assert process.stderr.read().splitlines() == [
        "interrupted",
        "state saved, go on with: diffalign search --resume runs/search-a-dog",
    ]


def test_a_device_that_cannot_be_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(index: int) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 0)
    monkeypatch.setattr(torch.accelerator, "set_device_index", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(overlapped(range(3), slowly))
