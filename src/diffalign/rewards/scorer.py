"""Rewards that are networks: their device, precision, batches and errors."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from diffalign.diffusion.loading import default_device
from diffalign.diffusion.quiet import quietly
from diffalign.rewards import RewardError
from diffalign.rewards.checkpoints import DamagedError, check_folder, local_first, one_line
from diffalign.rewards.scoring import as_pictures


class Scorer(ABC):
    """A network that scores pictures; a subclass has `load` and `score`.

    Arguments:
        checkpoint: a folder with the published files, or a hub name; the published one by default.
        device: on which it scores; the accelerator, if there is one, by default.
        dtype: of the network; float32 on a CPU and float16 elsewhere, by default.
        batch_size: pictures, or videos, scored at a time.
        offload: whether the network is on the CPU between two calls.

    Raises:
        RewardError: if the checkpoint is missing, or is another network's.
    """

    #: The repository of the hub with the published files.
    published: ClassVar[str]
    #: Further repositories, of parts that the checkpoint lacks, such as the tokenizer.
    others: ClassVar[tuple[str, ...]] = ()
    #: Modules that stay in float32, as half precision would give different pictures the same score.
    precise: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        checkpoint: str | Path = "",
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        batch_size: int = 16,
        offload: bool = False,
    ) -> None:
        self.checkpoint = str(checkpoint or self.published)
        self.batch_size, self.offload = batch_size, offload
        check_folder(self.checkpoint)
        self.device = _numbered(torch.device(device or default_device()))
        self.dtype = dtype or (torch.float32 if self.device.type == "cpu" else torch.float16)
        try:
            self.network = self._loaded().eval().requires_grad_(False)
        except (OSError, KeyError, RuntimeError, ValueError) as error:  # raised for missing or other files
            raise RewardError(
                f"cannot load {type(self).__name__} from {self.checkpoint!r}: {one_line(error)}; "
                f"{self._advice()}"
            ) from error
        for name, part in self.network.named_children():
            if name not in self.precise:
                part.to(self.dtype)
        if not offload:
            self.network.to(self.device)

    @quietly()
    def _loaded(self) -> nn.Module:
        """`load` with files on this machine, else with the hub's, if it can be reached."""

        def load(local: bool) -> nn.Module:
            self.local = local
            return self.load()

        return local_first(load, self.checkpoint)

    def _advice(self) -> str:
        advice = "give a folder with the published files as NAME@FOLDER"
        if Path(self.checkpoint).exists():
            return advice
        fetch = " and ".join(f"`hf download {name}`" for name in (self.checkpoint, *self.others))
        return f"{advice}, or fetch them where there is a network: {fetch}"

    def read(self, kind: Any, source: str | Path, **more: Any) -> Any:
        """An object of one of transformers' classes, from a folder or a repository.

        Raises:
            OSError: if it is missing or damaged.
        """
        try:
            return kind.from_pretrained(source, local_files_only=self.local, **more)
        except SafetensorError as error:
            raise DamagedError(f"the weights of {source} are damaged; delete and fetch them again") from error

    @abstractmethod
    def load(self) -> nn.Module:
        """The network, in float32 on the CPU; tokenizer and image processor are set beside it."""

    @abstractmethod
    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """Scores `(B,)` of B pictures and their prompts; the network is on `device`."""

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of pictures `(B, 3, H, W)`; of video `(B, F, 3, H, W)` the mean of its frames'."""
        return by_frame(self.score, images, prompts)

    @torch.inference_mode()
    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of pictures `(B, 3, H, W)` or video `(B, F, 3, H, W)` in [0, 1]; higher is better."""
        self.network.to(self.device)
        scores = []
        try:
            for start in range(0, len(images), self.batch_size):
                batch = slice(start, start + self.batch_size)
                scores.append(self.score_batch(images[batch], prompts[batch]).float().cpu())
        finally:
            if self.offload:
                self.network.to("cpu")
        return torch.cat(scores)

    def to_device(self, **inputs: Tensor) -> dict[str, Tensor]:
        """The tensors on the device; those of floating point in `dtype`."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in inputs.items()
        }


def by_frame(
    score: Callable[[list[Image.Image], list[str]], Tensor], images: Tensor, prompts: list[str]
) -> Tensor:
    """Scores `(B,)` of pictures `(B, 3, H, W)`; of video `(B, F, 3, H, W)` the mean of its frames'."""
    frames = images.shape[1] if images.ndim == 5 else 1
    by_picture = [prompt for prompt in prompts for _ in range(frames)]
    return score(as_pictures(images.flatten(0, -4)), by_picture).view(-1, frames).mean(1)


def _numbered(device: torch.device) -> torch.device:
    """`device` with the current accelerator's number if it has none, as threads differ in the current one."""
    index: int | None = device.index
    if device.type != "cpu" and index is None and torch.accelerator.is_available():
        return torch.device(device.type, torch.accelerator.current_device_index())
    return device
