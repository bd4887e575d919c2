"""Processes of their own without the seconds that importing torch takes: forked from one that has done so."""

import atexit
import multiprocessing
import os
import re
import runpy
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffalign.cli import hush_libraries

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["diffalign.run.launch", "diffalign.cli.progress", "diffalign.study.server"])
os.environ["TQDM_DISABLE"] = "1"  # which is left out at a terminal
hush_libraries()  # the process that forks has these variables too


class Process:
    """A Python module that is run as a program; what it says is in two files beside `folder`.

    Arguments:
        line: the module's name and its arguments, or a script's path.
        folder: where it runs.
        environment: variables that are added to those of the tests.
    """

    def __init__(self, line: Sequence[object], folder: Path, environment: Mapping[str, str] = {}) -> None:
        self.out, self.err = folder / "process.out", folder / "process.err"
        tokens = [str(token) for token in line]
        self.process = CONTEXT.Process(target=_run, args=(tokens, folder, dict(environment)))
        self.process.start()

    def wait_for(self, pattern: str, seconds: float = 60) -> re.Match[str]:
        """Waits until it has said what matches `pattern`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.out.exists() and (found := re.search(pattern, self.out.read_text())):
                return found
            assert self.process.is_alive(), self.err.read_text()
            time.sleep(0.02)
        raise AssertionError(f"nothing like {pattern} in {self.out.read_text()}")

    def stop(self, number: int = signal.SIGKILL, seconds: float = 60) -> int | None:
        """Sends it a signal; returns its exit code."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60) -> int | None:
        """Waits for its end; returns its exit code."""
        self.process.join(seconds)
        return self.process.exitcode


def launch(script: Path, number: int, seconds: float = 120) -> None:
    """Runs `number` processes of `script`, as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(number), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    folders = [script.parent / f"rank-{rank}" for rank in range(number)]
    started = []
    for rank, folder in enumerate(folders):
        folder.mkdir()
        started.append(Process([script], folder, {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}))
    try:
        assert [each.wait(seconds) for each in started] == [0] * number, [
            each.err.read_text() for each in started
        ]
    finally:
        for each in started:
            each.stop()


def _run(line: list[str], folder: Path, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environment)
    sys.path[:0] = environment.get("PYTHONPATH", "").split(os.pathsep)
    # a shell that runs the tests in the background lets them ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream, name in ((sys.stdout, "process.out"), (sys.stderr, "process.err")):
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, stream.fileno())
    sys.argv = line
    try:
        if line[0].endswith(".py"):
            runpy.run_path(line[0], run_name="__main__")
        else:
            runpy.run_module(line[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a child of multiprocessing leaves out
