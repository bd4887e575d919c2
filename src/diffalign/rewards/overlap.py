"""One batch of pictures is scored while the next is made."""

from __future__ import annotations

import atexit
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

import torch

Batch = TypeVar("Batch")
Said = TypeVar("Said")
_left: list[Thread] = []  # of iterations that ended early, perhaps still scoring


def overlapped(
    batches: Iterable[Batch], score: Callable[[Batch], Said], device: torch.device | None = None
) -> Iterator[tuple[Batch, Said]]:
    """Each of `batches` with what `score` says of it, in order; the next is made in the meantime.

    One thread scores, as a reward need not be thread-safe, and at most two batches are in memory. It does
    not keep the process alive; what an iteration that ended early left unscored, the next one waits for.
    Where there is no accelerator, batches are scored in between until one shows that the reward waits (for
    a server, say) longer than it computes: else it would take from sampling the cores that it needs. (The
    world's own CLIP beside the world's sampler on two cores: a fifth slower in a thread, measured.)

    Arguments:
        batches: made when they are asked for, such as by a generator.
        score: whatever it raises is raised here, at the latest when the next batch is made.
        device: that the thread's current accelerator shall be; that of this thread by default.
    """
    settled()
    batches, waits = iter(batches), torch.accelerator.is_available()
    while not waits:
        try:
            batch = next(batches)
        except StopIteration:
            return
        wall, computing = time.perf_counter(), time.thread_time()
        said = score(batch)
        waits = time.perf_counter() - wall > 2 * (time.thread_time() - computing)
        yield batch, said
    asked, ready = SimpleQueue[tuple[Batch, Future[Said]] | None](), Future[None]()
    thread = Thread(target=_work, args=(asked, score, _index(device), ready), daemon=True)
    waiting: deque[tuple[Batch, Future[Said]]] = deque()
    threads = torch.get_num_threads()
    thread.start()
    try:
        ready.result()
        torch.set_num_threads(threads)  # what later threads get; that one keeps its own
        for batch in batches:
            waiting.append((batch, Future()))
            asked.put(waiting[-1])
            if len(waiting) == 2:
                said = waiting[0][1].result()
                yield waiting.popleft()[0], said
        while waiting:
            said = waiting[0][1].result()
            yield waiting.popleft()[0], said
    finally:
        asked.put(None)
        for _, future in waiting:
            future.cancel()
        if waiting:
            _left.append(thread)


def settled(seconds: float | None = None) -> bool:
    """Waits at most `seconds` for what iterations that ended early left unscored; whether that ended.

    The interpreter must not end while a thread computes in torch, which would abort the process.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while _left:
        _left[-1].join(None if end is None else max(0.0, end - time.monotonic()))
        if _left[-1].is_alive():
            return False
        _left.pop()
    return True


atexit.register(settled, 3.0)


def _work(
    asked: SimpleQueue[tuple[Batch, Future[Said]] | None],
    score: Callable[[Batch], Said],
    index: int | None,
    ready: Future[None],
) -> None:
    try:
        torch.set_num_threads(1)  # a second team of CPU threads would slow the first down by a third
        torch.get_num_threads()  # makes it stay, whatever other threads set
        if index is not None:
            torch.accelerator.set_device_index(index)  # each thread has a current one of its own
        ready.set_result(None)
    except RuntimeError as error:  # the accelerator has no room, or is taken
        ready.set_exception(error)
        return
    while (task := asked.get()) is not None:
        batch, future = task
        fulfil(future, score, batch)


def fulfil(future: Future[Said], score: Callable[[Batch], Said], batch: Batch) -> None:
    """Gives a future what `score` says of `batch`, or what it raises, unless nobody waits any more."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(score(batch))
        except BaseException as error:  # it belongs to who asked, whatever it is
            future.set_exception(error)


def _index(device: torch.device | None) -> int | None:
    if not torch.accelerator.is_available():
        return None
    if device is not None and device.type != "cpu" and device.index is not None:
        return device.index
    return torch.accelerator.current_device_index()
