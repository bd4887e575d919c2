"""One batch of pictures is scored while the next is made."""

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
Score = TypeVar("Score")
EXIT_SECONDS = 3.0  # that the end of the process waits for a thread that still scores
WAITING_RATIO = 2  # of wall time to computing time, from which on a reward counts as one that waits
_unfinished: list[Thread] = []  # of iterations that ended early, perhaps still scoring


def overlapped(
    batches: Iterable[Batch], score: Callable[[Batch], Score], device: torch.device | None = None
) -> Iterator[tuple[Batch, Score]]:
    """Pairs of a batch and `score(batch)`, in order; while one is scored, the next is made.

    One thread scores, as a reward need not be thread-safe, and at most two batches are in memory. The thread
    does not keep the process alive. If an iteration ends early, the next one waits until its thread is done.

    Without an accelerator, batches are first scored in this thread, until one shows that the reward waits
    (for a server, say) longer than it computes: a reward that computes would take cores from the sampler.
    (The world's CLIP beside the world's sampler on two cores was a fifth slower in a thread.)

    Arguments:
        batches: an iterator that makes a batch when it is advanced, such as a generator.
        score: what it raises is raised here, at the latest when the next batch is made.
        device: the accelerator on which the thread scores; the current one of this thread by default.
    """
    wait_for_scoring()
    batches, waits = iter(batches), torch.accelerator.is_available()
    while not waits:
        try:
            batch = next(batches)
        except StopIteration:
            return
        wall, computing = time.perf_counter(), time.thread_time()
        result = score(batch)
        waits = time.perf_counter() - wall > WAITING_RATIO * (time.thread_time() - computing)
        yield batch, result
    queue, ready = SimpleQueue[tuple[Batch, Future[Score]] | None](), Future[None]()
    thread = Thread(target=_work, args=(queue, score, _index(device), ready), daemon=True)
    waiting: deque[tuple[Batch, Future[Score]]] = deque()
    threads = torch.get_num_threads()
    thread.start()
    try:
        ready.result()
        torch.set_num_threads(threads)  # for threads to come; the scoring one keeps its number
        for batch in batches:
            waiting.append((batch, Future()))
            queue.put(waiting[-1])
            if len(waiting) == 2:
                result = waiting[0][1].result()
                yield waiting.popleft()[0], result
        while waiting:
            result = waiting[0][1].result()
            yield waiting.popleft()[0], result
    finally:
        queue.put(None)
        for _, future in waiting:
            future.cancel()
        if waiting:
            _unfinished.append(thread)


def wait_for_scoring(seconds: float | None = None) -> bool:
    """Waits until threads of iterations that ended early are done; returns whether they are.

    The interpreter must not end while a thread computes in torch, which would abort the process.

    Arguments:
        seconds: to wait at most; for as long as it takes by default.
    """
    end = None if seconds is None else time.monotonic() + seconds
    while _unfinished:
        _unfinished[-1].join(None if end is None else max(0.0, end - time.monotonic()))
        if _unfinished[-1].is_alive():
            return False
        _unfinished.pop()
    return True


atexit.register(wait_for_scoring, EXIT_SECONDS)


def _work(
    queue: SimpleQueue[tuple[Batch, Future[Score]] | None],
    score: Callable[[Batch], Score],
    index: int | None,
    ready: Future[None],
) -> None:
    """The scoring thread, on accelerator `index`; `ready` is set before it takes the first batch."""
    try:
        torch.set_num_threads(1)  # a second team of CPU threads would slow the first down by a third
        torch.get_num_threads()  # fixes the number for this thread, whatever other threads set
        if index is not None:
            torch.accelerator.set_device_index(index)  # the current one differs between threads
        ready.set_result(None)
    except RuntimeError as error:  # the accelerator has no room, or is taken
        ready.set_exception(error)
        return
    while (task := queue.get()) is not None:
        batch, future = task
        fulfil(future, score, batch)


def fulfil(future: Future[Score], score: Callable[[Batch], Score], batch: Batch) -> None:
    """Sets the future to `score(batch)`, or to what that raises, unless the future was cancelled."""
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(score(batch))
        except BaseException as error:  # whoever waits for the future raises it
            future.set_exception(error)


def _index(device: torch.device | None) -> int | None:
    """The number of `device`, or of the current accelerator; None without one."""
    if not torch.accelerator.is_available():
        return None
    if device is not None and device.type != "cpu" and device.index is not None:
        return device.index
    return torch.accelerator.current_device_index()
