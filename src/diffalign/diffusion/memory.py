"""What does not fit into memory: batches are halved, each sample having its own seed; videos lie on disk."""

import warnings
from collections.abc import Callable, Iterable, Iterator
from tempfile import TemporaryFile
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

#: Bytes of pictures or videos beyond which they lie on disk.
IN_MEMORY = 256 * 2**20
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


class Pile:
    """Tensors `(B, …)` that become one, batch by batch; beyond `IN_MEMORY` bytes it lies in a temporary file.

    The file has no name: it is gone with the tensor, or with the process, whatever ends that.
    """

    def __init__(self) -> None:
        self._waiting = list[Tensor]()
        self._file: Any = None

    def add(self, batch: Tensor) -> None:
        """Puts a batch, of the shape and the type of all others, behind them."""
        self._waiting.append(batch)
        if batch.device.type == "cpu" and sum(tensor.nbytes for tensor in self._waiting) > IN_MEMORY:
            self._write()

    def _write(self) -> None:
        self._file = self._file or TemporaryFile(prefix="diffalign-")  # noqa: SIM115
        for tensor in self._waiting:
            self._file.write(tensor.contiguous().numpy())
        self._waiting = [self._waiting[-1][:0].clone()]

    def joined(self) -> Tensor:
        """All of them, as `torch.cat` has them."""
        if self._file is None:
            return torch.cat(self._waiting)
        self._write()
        like = self._waiting[0]
        mapped = np.memmap(self._file, like.numpy().dtype, "r+")
        return torch.from_numpy(mapped).view(-1, *like.shape[1:])


def joined(batches: Iterable[Tensor]) -> Tensor:
    """Tensors `(B, …)` as one, which may lie in a temporary file."""
    pile = Pile()
    for batch in batches:
        pile.add(batch)
    return pile.joined()
