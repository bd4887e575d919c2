"""One batch of pictures is scored while the next is made."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Batch = TypeVar("Batch")
Said = TypeVar("Said")


def overlapped(
    batches: Iterable[Batch], score: Callable[[Batch], Said], device: torch.device | None = None
) -> Iterator[tuple[Batch, Said]]:
    """Each of `batches` with what `score` says of it, in order; the next is made in the meantime.

    One thread scores, as a reward need not be thread-safe, and at most two batches are in memory. Where
    there is no accelerator, batches are scored in between until one shows that the reward waits (for a
    server, say) longer than it computes: else it would take from sampling the cores that it needs. (The
    world's own CLIP beside the world's sampler on two cores: a fifth slower in a thread, measured.)

    Arguments:
        batches: made when they are asked for, such as by a generator.
        score: whatever it raises is raised here, at the latest when the next batch is made.
        device: that the thread's current accelerator shall be; the first by default.
    """

    def prepared() -> None:
        torch.set_num_threads(1)  # a second team of CPU threads would slow the first down by a third
        torch.get_num_threads()  # makes it stay, whatever other threads set
        if device is not None and device.type != "cpu" and device.index is not None:
            torch.accelerator.set_device_index(device.index)  # each thread has a current one of its own

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
    threads, pool = torch.get_num_threads(), ThreadPoolExecutor(1)
    waiting: deque[tuple[Batch, Future[Said]]] = deque()
    try:
        pool.submit(prepared).result()
        torch.set_num_threads(threads)  # what later threads get; that one keeps its own
        for batch in batches:
            waiting.append((batch, pool.submit(score, batch)))
            if len(waiting) == 2:
                made, future = waiting.popleft()
                yield made, future.result()
        for made, future in waiting:
            yield made, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
