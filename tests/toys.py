"""Problems that cost nothing and whose answer is known: environments, prompts and a denoiser."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler
from safetensors.torch import save_file
from torch import Tensor

from diffalign.diffusion.transition import Schedule


def noise_itself(x_T: Tensor, prompt: str) -> Tensor:
    """Pictures that are their noise."""
    return x_T


@dataclass
class Toy:
    """An environment of the function `make`, that counts the pictures of each call in `sizes`."""

    latent_shape: tuple[int, ...]
    make: Callable[[Tensor, str], Tensor] = noise_itself
    batch_size: int = 16
    forwards: int = 1
    grid: tuple[int, int] | None = None
    sizes: list[int] = field(default_factory=list)

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        self.sizes.append(len(x_T))
        return self.make(x_T, prompt)


WIDTH = 8  # of token states


def sides(prompt: str) -> Tensor:
    """Token states `(2, WIDTH)`: one token that says which side, and one that says nothing."""
    row = torch.zeros(2, WIDTH)
    row[0, 0 if "left" in prompt else 1] = 3.0
    return row


def half(images: Tensor, prompts: Sequence[str]) -> Tensor:
    """How bright the half is that the prompt names, less the other."""
    middle = images.shape[-1] // 2
    left, right = images[..., :middle].flatten(1).mean(1), images[..., middle:].flatten(1).mean(1)
    signs = torch.tensor([1.0 if "left" in prompt else -1.0 for prompt in prompts])
    return signs * (left - right)


class AnalyticPolicy(torch.nn.Module):
    """A denoiser policy of data N(b, a² I), whose denoiser is exact: b is learned, and starts at 0."""

    def __init__(
        self, latent: tuple[int, ...] = (1, 2, 2), a: float = 0.3, steps: int = 5, batch_size: int = 64
    ) -> None:
        super().__init__()
        self.a, self.b = a, torch.nn.Parameter(torch.zeros(latent))
        scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
        pipeline = SimpleNamespace(device="cpu", scheduler=scheduler, unet=self)
        self.sampler = SimpleNamespace(
            pipeline=pipeline, latent_shape=latent, grid=None, batch_size=batch_size, forwards=steps, passes=1
        )
        scheduler.set_timesteps(steps)
        self.schedule = Schedule(scheduler)
        self.timesteps, self.decisions = self.schedule.timesteps, self.schedule.decisions
        self.stds = [self.schedule.std(step) for step in range(steps)]
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.eta, self.rank = 1.0, 4

    def learned(self) -> list[torch.nn.Parameter]:
        return [self.b]

    def forward(
        self, x_t: Tensor, step: int, prompts: Sequence[str], eta: float = 1.0
    ) -> tuple[Tensor, float]:
        return self.decide(self.b, x_t, step, eta)

    def pretrained(self, x_t: Tensor, step: int, prompts: Sequence[str]) -> tuple[Tensor, float]:
        return self.decide(torch.zeros_like(self.b), x_t, step)

    def decide(self, b: Tensor, x_t: Tensor, step: int, eta: float = 1.0) -> tuple[Tensor, float]:
        now, _ = self.schedule.levels[step]
        # E[ε | x_t] of x_t = α x_0 + σ ε
        variance = now.alpha**2 * self.a**2 + now.sigma**2
        return self.schedule.transition(now.sigma * (x_t - now.alpha * b) / variance, step, x_t, eta)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        learned, self.b.data = self.b.data, torch.zeros_like(self.b.data)
        try:
            yield
        finally:
            self.b.data = learned

    def decode(self, x_0: Tensor, prompts: Sequence[str]) -> Tensor:
        return x_0

    def save(self, folder: Path) -> None:
        save_file({"b": self.b.detach()}, folder / "weights.safetensors")
