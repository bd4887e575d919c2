"""What becomes of latents on their way: some of a sampler's steps, and the pictures expected of the last."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.diffusion.sampler import Sampler
from diffalign.diffusion.steps import PipelineSteps
from diffalign.diffusion.transition import Schedule


class Estimates:
    """A sampler's steps without noise, as far as one likes.

    They are of the first order; a solver of a higher one, such as DPM++'s, takes others, to pictures that are
    much alike.

    Arguments:
        sampler: whose pipeline's denoiser is asked.

    Attributes:
        num_steps: T, of the sampler.

    Raises:
        PipelineError: if its scheduler is of no kind known here.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.sampler, self._steps = sampler, PipelineSteps(sampler)
        self._schedule = Schedule(self._steps.scheduler)
        self.num_steps = len(self._schedule.timesteps)

    def forwards(self, steps: range) -> int:
        """Denoiser evaluations of a sample."""
        return len(steps) * self.sampler.passes

    @torch.no_grad()
    def __call__(self, x_t: Tensor, steps: range, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Latents after `steps`, `(B, *latent)`, and pictures `(B, 3, H, W)` of x̂_0, which the denoiser
        expects at the last of them; both float32 on the CPU.

        Arguments:
            x_t: latents before them, `(B, *latent)`.
            steps: numbered from the noise, at least one.
            prompts: one a sample.
        """
        x_t = x_0 = x_t.to(self._steps.device)
        for step in steps:
            prediction = self._steps.predict(x_t, self._schedule.timesteps[step : step + 1], prompts)
            x_0 = self._schedule.estimate(prediction, step, x_t)
            x_t, _ = self._schedule.transition(prediction, step, x_t, 0.0)
        return x_t.cpu(), self._steps.decode(x_0, prompts).cpu()
