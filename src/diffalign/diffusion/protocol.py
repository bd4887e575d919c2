"""What is used of a diffusers pipeline: any object that has it will do, whatever its class."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch


@runtime_checkable
class Scheduler(Protocol):
    """A noise schedule and the steps along it, such as a `DDIMScheduler`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Its settings, by name."""


@runtime_checkable
class Pipeline(Protocol):
    """A text-to-image or text-to-video pipeline whose call takes `latents=`; a `DiffusionPipeline` is one.

    Attributes:
        scheduler: may be replaced, for example by DDIM.
    """

    scheduler: Scheduler

    @property
    def config(self) -> Mapping[str, Any]:
        """Its settings; `_name_or_path` is the alias, folder or hub name that it was loaded by."""

    @property
    def device(self) -> torch.device:
        """Where it computes; latents are given there."""

    @property
    def dtype(self) -> torch.dtype:
        """The precision of its weights; latents are given in it."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Moves it to a device or a precision, and returns it."""

    def prepare_latents(self, *args: Any, **kwargs: Any) -> Any:
        """The initial latents `(B, *latent)`, alone or first in a tuple."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """An output with `images` `(B, 3, H, W)` or `frames` `(B, F, 3, H, W)`."""
