"""The processes of a data-parallel run, as `accelerate launch` or `torchrun` started them."""

import atexit
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from torch import Tensor

from diffalign.diffusion.pipeline import denoiser
from diffalign.diffusion.sharding import DividedDenoiser
from diffalign.settings.fields import ConfigError

T = TypeVar("T")
PATIENCE = timedelta(hours=12)  # the others wait while the main process checks held-out prompts


def _state(cpu: bool) -> Any:
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        return PartialState(cpu=cpu)
    if not PartialState._shared_state:  # the first; left to the interpreter's end, gloo's threads may abort
        atexit.register(lambda: PartialState().destroy_process_group())
    return PartialState(cpu=cpu, timeout=PATIENCE)


def own_device() -> torch.device | None:
    """This process's accelerator among several; None without one, or if it is the only process."""
    several = "LOCAL_RANK" in os.environ and torch.accelerator.is_available()
    return _state(False).device if several else None


@dataclass(frozen=True)
class Processes:
    """This process among those of its run; the only one unless more were started.

    Attributes:
        divided: the denoiser, if they hold a part of it each.
    """

    index: int = 0
    number: int = 1
    divided: DividedDenoiser | None = None

    @classmethod
    def started(cls, device: torch.device | str, divided: DividedDenoiser | None = None) -> Self:
        """Those that were started, of a model on `device`; on a CPU they talk through gloo."""
        state = _state(torch.device(device).type == "cpu")
        return cls(state.process_index, state.num_processes, divided)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.index == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What of `items` is this process's to do."""
        return list(items[self.index :: self.number])

    def attend(self) -> None:
        """Waits until all are here, and lets those that are not compute with a divided denoiser."""
        if self.divided is not None:
            self.divided.attend()

    def gather(self, items: list[T]) -> list[T]:
        """The items of all processes; each must call it."""
        self.attend()
        return gather_object(items) if self.number > 1 else items

    def add_gradients(self, parameters: Sequence[Any]) -> None:
        """Replaces each gradient by its sum over all processes; one without samples adds nothing."""
        if self.number == 1:
            return
        self.attend()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        total: Tensor = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "sum")
        parts = total.split([gradient.numel() for gradient in gradients])
        for parameter, gradient, part in zip(parameters, gradients, parts, strict=True):
            parameter.grad = part.view_as(gradient).clone()


def check_several(device: torch.device | str) -> None:
    """Raises a `ConfigError` if this process is the only one, which holds what it does not divide."""
    if Processes.started(device).number == 1:
        raise ConfigError(
            "shard divides the denoiser among processes, but this is the only one; start several: "
            "torchrun --standalone --nproc_per_node 2 -m diffalign tune … (or accelerate launch)"
        )


def divide(pipeline: Any, device: torch.device | str) -> None:
    """Divides a pipeline's denoiser, once, among the processes; all must call it. It computes on `device`.

    Raises:
        ConfigError: if this process is the only one.
    """
    check_several(device)
    if DividedDenoiser.of(denoiser(pipeline)) is None:
        DividedDenoiser(pipeline, torch.device(device), PATIENCE)
