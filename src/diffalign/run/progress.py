"""How far a run is."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from diffalign.diffusion import Sampler


class Progress(Protocol):
    """Whom a run tells how far it is."""

    def phase(self, name: str, total: int, done: int = 0) -> AbstractContextManager[None]:
        """A phase of `total` pictures, of which `done` were made by the run that this one resumes."""

    def advance(self, pictures: int) -> None:
        """Pictures that were made."""

    def reward(self, mean: float, best: float) -> None:
        """The newest figures."""

    def warn(self, said: str) -> None:
        """What the user should know before the end."""


class Watched:
    """The sampler as an environment that counts its pictures."""

    def __init__(self, sampler: Sampler, progress: Progress) -> None:
        self.sampler, self.progress = sampler, progress

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        parts = []
        for part in x_T.split(self.sampler.batch_size):  # as the sampler itself splits
            parts.append(self.sampler(part, prompt))
            self.progress.advance(len(part))
        return torch.cat(parts)

    @property
    def forwards(self) -> int:
        """Denoiser evaluations a picture: a sampler may take more steps than it is asked for."""
        timesteps = getattr(self.sampler.pipeline.scheduler, "timesteps", None)
        steps = self.sampler.num_steps if timesteps is None else len(timesteps)
        guided = self.sampler.guidance_scale is not None and self.sampler.guidance_scale > 1
        return steps * (2 if guided else 1)
