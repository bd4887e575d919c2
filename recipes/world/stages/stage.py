"""What a training stage is, and what all stages share."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

SEED = 2026


class Stage(ABC):
    """What one training stage adds to the training loop."""

    name: str
    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    model: Any
    part: slice = slice(None)  # of each batch, for this process of a data-parallel run

    def batch_generator(self, step: int) -> np.random.Generator:
        """The generator of batch `step`, which depends on the stage and on `step` alone."""
        return np.random.default_rng([SEED, sum(self.name.encode()), step])

    @abstractmethod
    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of batch `step` and figures to log."""

    @abstractmethod
    def picture(self) -> torch.Tensor | None:
        """A grid `(3, H, W)` in [0, 1] that shows how far training is."""


def load_stage(stage: Stage, folder: Path, name: str | None = None) -> Any:
    """The stage's model with the averaged weights of the stage called `name` (its own by default), frozen.

    They are half-precision on disk, as in the shipped pipeline: a stage starts from what ships.

    Raises:
        SystemExit: if the stage has not been trained in `folder`.
    """
    name = name or stage.name
    file = folder / name / "ema.safetensors"
    if not file.exists():
        raise SystemExit(f"stage {name!r} has not been trained in {folder}: run it first")
    stage.model.load_state_dict(load_file(file), strict=False)
    return stage.model.eval().requires_grad_(False)


def grid(pictures: torch.Tensor, columns: int) -> torch.Tensor:
    """`(B, 3, H, W)` → one picture `(3, rows·2H, columns·2W)`, enlarged twice."""
    rows = [torch.cat(list(pictures[i : i + columns]), 2) for i in range(0, len(pictures), columns)]
    return F.interpolate(torch.cat(rows, 1)[None], scale_factor=2)[0]
