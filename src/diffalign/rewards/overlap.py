"""One batch of pictures is scored while the next is made."""

from __future__ import annotations

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

    One thread scores, as a reward need not be thread-safe, and at most two batches are in memory.

    Arguments:
        batches: made when they are asked for, such as by a generator.
        score: whatever it raises is raised here, at the latest when the next batch is made.
        device: that the thread's current accelerator shall be; the first by default.
    """

    def on_its_accelerator() -> None:  # each thread has a current one of its own, the first by default
        if device is not None and device.type != "cpu" and device.index is not None:
            torch.accelerator.set_device_index(device.index)

    pool = ThreadPoolExecutor(1, initializer=on_its_accelerator)
    waiting: deque[tuple[Batch, Future[Said]]] = deque()
    try:
        for batch in batches:
            waiting.append((batch, pool.submit(score, batch)))
            if len(waiting) == 2:
                made, future = waiting.popleft()
                yield made, future.result()
        for made, future in waiting:
            yield made, future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
