r"""A DDIM step as a Gaussian.   p(x_{t−1} | x_t) = N(m(x_t, f), s_t² I),   f = the denoiser's prediction

    s_t = η √((1 − ᾱ_{t−1}) / (1 − ᾱ_t)) √(1 − ᾱ_t / ᾱ_{t−1})

diffusers' scheduler computes the mean, for every prediction type and with its clipping, so that a
policy samples as the pipeline does.

References: Song et al. (ICLR 2021), eqs. 12 and 16, https://arxiv.org/abs/2010.02502
            Black et al. (ICLR 2024), section 4.3, https://arxiv.org/abs/2305.13301
"""

import math

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError, takes_ddim
from diffalign.diffusion.protocol import Pipeline

LOG_2PI = math.log(2 * math.pi)


def ddim_scheduler(pipeline: Pipeline, num_steps: int) -> DDIMScheduler:
    """A `DDIMScheduler` of `num_steps` steps with the pipeline's noise schedule.

    Its last step goes from t = 1 to ᾱ_0 and not to 1, as Stable Diffusion's does, so that it is a decision
    too: elsewhere s_t would be 0.

    Raises:
        PipelineError: if DDIM cannot follow the schedule.
    """
    if not takes_ddim(pipeline):
        raise PipelineError(
            f"{type(pipeline.scheduler).__name__}'s noise schedule is not one that DDIM can follow, so its "
            "steps are no Gaussian decisions; find learns the initial noise of such a pipeline"
        )
    config = pipeline.scheduler.config
    scheduler = DDIMScheduler.from_config(
        config,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="leading",
        clip_sample=config.get("clip_sample", False),  # DDIM's default clips latents
    )
    scheduler.set_timesteps(num_steps, device=pipeline.device)
    return scheduler


def ddim_transition(
    scheduler: DDIMScheduler, prediction: Tensor, t: int, x_t: Tensor, eta: float = 1.0
) -> tuple[Tensor, float]:
    """Mean `(B, *latent)`, float32, and standard deviation s_t of x_{t−1}.

    Arguments:
        scheduler: a `DDIMScheduler` whose timesteps are set.
        prediction: the denoiser's output f with shape `(B, *latent)`; gradient passes through it.
        t: the timestep, one of `scheduler.timesteps`.
        x_t: the latents with shape `(B, *latent)`.
        eta: η, the share of DDPM's noise; 0 is deterministic.
    """
    no_noise = torch.zeros_like(x_t, dtype=torch.float32)
    step = scheduler.step(prediction.float(), t, x_t.float(), eta=eta, variance_noise=no_noise)
    return step.prev_sample, ddim_std(scheduler, t, eta)


def ddim_std(scheduler: DDIMScheduler, t: int, eta: float = 1.0) -> float:
    """The standard deviation s_t of x_{t−1}; arguments as those of `ddim_transition`."""
    before = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    std: float = eta * float(scheduler._get_variance(t, before)) ** 0.5
    return std


def gaussian_log_prob(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-density of `x`, `(B, *latent)` → `(B,)`: its mean over the latent's elements, in float32."""
    square = ((x.float() - mean.float()) / std).square().flatten(1).mean(1)
    return -0.5 * square - math.log(std) - 0.5 * LOG_2PI
