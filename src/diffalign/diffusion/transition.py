r"""A sampler's steps as Gaussians.   p(x_{t−1} | x_t) = N(√ᾱ' x̂_0 + √(1 − ᾱ' − s²) ε̂,  s² I)

    s = η √((1 − ᾱ') / (1 − ᾱ)) √(1 − ᾱ / ᾱ')

x̂_0 and ε̂ are linear in the denoiser's prediction f:

    epsilon        x̂_0 = (x_t − √(1 − ᾱ) f) / √ᾱ       ε̂ = f
    v_prediction   x̂_0 = √ᾱ x_t − √(1 − ᾱ) f           ε̂ = √ᾱ f + √(1 − ᾱ) x_t
    sample         x̂_0 = f                              ε̂ = (x_t − √ᾱ f) / √(1 − ᾱ)

The timesteps are the pipeline's own: a policy that visited others would tune a model that nobody samples.

Symbols:    ᾱ = share of the signal at t, ᾱ' = that of the next step, s = std, η = eta
References: Song et al. (ICLR 2021), eqs. 12 and 16, https://arxiv.org/abs/2010.02502
            Black et al. (ICLR 2024), section 4.3, https://arxiv.org/abs/2305.13301
            Salimans and Ho (ICLR 2022), v-prediction, https://arxiv.org/abs/2202.00512
"""

import math

from diffusers import DDIMScheduler
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError, ddim_of, own_timesteps, takes_ddim
from diffalign.diffusion.protocol import Pipeline

LOG_2PI = math.log(2 * math.pi)


class Schedule:
    """The steps of a pipeline's sampler that can be decisions.

    A last step to ᾱ' = 1 would be none, as its s is 0: it goes to ᾱ_0 instead, as Stable Diffusion's does. A
    step that starts there is left out; it hardly changes a picture.

    Attributes:
        timesteps: the t of each decision, from the noise.

    Raises:
        PipelineError: if DDIM cannot follow the noise schedule, or there are no decisions.
    """

    def __init__(self, pipeline: Pipeline, num_steps: int) -> None:
        own = pipeline.scheduler
        if not takes_ddim(pipeline):
            raise PipelineError(
                f"{type(own).__name__}'s noise schedule or prediction is not one that DDIM can follow, so "
                "its steps are no Gaussian decisions; find learns the initial noise of such a pipeline"
            )
        self.scheduler = ddim_of(own, set_alpha_to_one=False)
        self.kind: str = self.scheduler.config.prediction_type
        timesteps = own_timesteps(pipeline, num_steps)
        before = [*timesteps[1:], -1]
        if isinstance(own, DDIMScheduler):  # whose steps have one length
            before = [t - own.config.num_train_timesteps // num_steps for t in timesteps]
        alphas = self.scheduler.alphas_cumprod
        steps = [(t, alphas[t], alphas[max(0, after)]) for t, after in zip(timesteps, before, strict=True)]
        steps = [(t, alpha, after) for t, alpha, after in steps if after > alpha]
        if not steps:
            raise PipelineError(
                f"{type(own).__name__} with {num_steps} steps starts where no noise is left, so that "
                "there is nothing to decide; take more steps"
            )
        if self.kind == "epsilon" and not steps[0][1]:
            raise PipelineError(
                f"{type(own).__name__}'s schedule starts without any signal (zero terminal SNR), of which a "
                "denoiser that predicts noise says nothing"
            )
        self.timesteps = [t for t, _, _ in steps]
        self.alphas = [(alpha, after) for _, alpha, after in steps]

    def std(self, step: int, eta: float = 1.0) -> float:
        """The standard deviation s of decision `step`, counted from the noise."""
        std: float = eta * float(self._variance(step)) ** 0.5
        return std

    def _variance(self, step: int) -> Tensor:
        alpha, after = self.alphas[step]
        variance: Tensor = (1 - after) / (1 - alpha) * (1 - alpha / after)
        return variance

    def epsilon_weight(self, step: int, eta: float = 1.0) -> float:
        """2 s² / c² of a decision whose mean is … + c ε̂: a squared difference of predicted noise is so many
        divergences of the decisions."""
        alpha, after = self.alphas[step]
        variance = eta**2 * self._variance(step)
        c = (1 - after - variance).clamp_min(0) ** 0.5 - (after * (1 - alpha) / alpha) ** 0.5
        return float(2 * variance / c**2)

    def transition(
        self, prediction: Tensor, step: int, x_t: Tensor, eta: float = 1.0
    ) -> tuple[Tensor, float]:
        """Mean `(B, *latent)`, float32, and standard deviation s of what follows `x_t`.

        Arguments:
            prediction: the denoiser's output f with shape `(B, *latent)`; gradient passes through it.
            step: the decision's number, counted from the noise.
            x_t: the latents with shape `(B, *latent)`.
            eta: η, the share of DDPM's noise; 0 is deterministic.
        """
        (alpha, after), f, x_t = self.alphas[step], prediction.float(), x_t.float()
        signal, noise = alpha**0.5, (1 - alpha) ** 0.5
        match self.kind:
            case "epsilon":
                x_0, epsilon = (x_t - noise * f) / signal, f
            case "v_prediction":
                x_0, epsilon = signal * x_t - noise * f, signal * f + noise * x_t
            case _:
                x_0, epsilon = f, (x_t - signal * f) / noise
        config, variance = self.scheduler.config, (eta * self._variance(step) ** 0.5) ** 2
        if config.thresholding:
            x_0 = self.scheduler._threshold_sample(x_0)
        elif config.clip_sample:
            x_0 = x_0.clamp(-config.clip_sample_range, config.clip_sample_range)
        direction = (1 - after - variance).clamp_min(0) ** 0.5  # 0 after no signal, but for rounding
        return after**0.5 * x_0 + direction * epsilon, self.std(step, eta)


def gaussian_log_prob(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-density of `x`, `(B, *latent)` → `(B,)`: its mean over the latent's elements, in float32."""
    square = ((x.float() - mean.float()) / std).square().flatten(1).mean(1)
    return -0.5 * square - math.log(std) - 0.5 * LOG_2PI
