"""Batches that are halved where memory runs out: each sample has its own seed, so that results stay."""

import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

Made = TypeVar("Made")


class Fitting:
    """A batch size that is halved when memory runs out, and then stays as it is.

    Arguments:
        size: how many samples make a batch at first.
        flag: of the command line, for the warning.
    """

    def __init__(self, size: int, flag: str = "--batch-size") -> None:
        self.size, self.flag = size, flag

    def halve(self, error: RuntimeError) -> None:
        """Halves the size, with a warning, if `error` says that memory ran out; else raises it again."""
        if self.size == 1 or not should_reduce_batch_size(error):
            raise error
        before, self.size = self.size, self.size // 2
        clear_device_cache(garbage_collection=True)
        warnings.warn(
            f"out of memory with {before} samples at a time; going on with {self.size}, and the same results "
            f"({self.flag} {self.size} would begin with them)",
            stacklevel=3,
        )

    def batches(self, make: Callable[[slice], Made], number: int) -> Iterator[Made]:
        """What `make` returns of each slice of `number` samples; a slice that does not fit is halved."""
        start = 0
        while start < number:
            batch = slice(start, min(start + self.size, number))
            try:
                made = make(batch)
            except RuntimeError as error:
                self.halve(error)
                continue
            yield made
            start = batch.stop
