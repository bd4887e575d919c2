r"""A sampler's steps as Gaussians, of every family.   x_t = α x_0 + σ ε

    p(x' | x_t) = N(α' x̂_0 + √(σ'² − s²) ε̂,  s² I)             primes: of the next step

x̂_0 and ε̂ are linear in the denoiser's prediction f:

    epsilon           x̂_0 = (x_t − σ f) / α       ε̂ = f
    v_prediction      x̂_0 = α x_t − σ f           ε̂ = α f + σ x_t
    sample            x̂_0 = f                     ε̂ = (x_t − α f) / σ
    flow_prediction   x̂_0 = x_t − t f             ε̂ = x_t + (1 − t) f        α = 1 − t, σ = t

and s is η times that of DDPM, or of flow matching σ' sin(η π / 2), which keeps the coefficients:

    ddim         s = η (σ' / σ) √(1 − α² / α'²)
    flow-grpo    dx = [f + τ² / 2t (x_t + (1 − t) f)] dt + τ √|dt| ε,   τ = η √(t / (1 − t)),   s = τ √|dt|
    dance-grpo   the same with τ = η

Timesteps and levels of noise are the pipeline's own: a policy that visited others would tune a model that
nobody samples.

Symbols:    t = the level of noise, s = std, η = eta; of a first step from t = 1, the 1 − t in τ is the next's
References: Song et al. (ICLR 2021), eqs. 12 and 16, https://arxiv.org/abs/2010.02502
            Black et al. (ICLR 2024), section 4.3, https://arxiv.org/abs/2305.13301
            Salimans and Ho (ICLR 2022), v-prediction, https://arxiv.org/abs/2202.00512
            Liu et al. (2025), Flow-GRPO, https://arxiv.org/abs/2505.05470
            Xue et al. (2025), DanceGRPO, https://arxiv.org/abs/2505.07818
            Wang and Yu (2025), coefficients-preserving sampling, https://arxiv.org/abs/2509.05952
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from diffalign.diffusion.pipeline import PipelineError, ddim_of, follows_betas, whole_timesteps

LOG_2PI = math.log(2 * math.pi)
#: Of a flow's first step, 1 − t below which it begins at noise alone: some solvers begin at t = 0.999.
BEGINNING = 0.01


@dataclass(frozen=True)
class Level:
    """How much signal α and noise σ latents have: x_t = α x_0 + σ ε."""

    alpha: float
    sigma: float


class Schedule:
    """The steps of a pipeline's sampler.

    Arguments:
        scheduler: the pipeline's, whose timesteps are set.
        sde: where noise comes from, "ddim", or for flow matching "flow-grpo" or "dance-grpo" too.

    Of betas, a last step to α' = 1 would be no decision, as its s is 0: it goes to the schedule's first level
    instead, as Stable Diffusion's does. A step that starts there is left out; it hardly changes a picture. Of
    flow matching the last step goes to a picture without noise, and is no decision.

    Attributes:
        timesteps: as the denoiser is given them, from the noise, `(T,)`.
        levels: of each step, that before it and that after it.
        decisions: the steps with noise.

    Raises:
        PipelineError: if its noise schedule or prediction is of no kind known here, has no decisions, or does
            not fit `sde`.
    """

    def __init__(self, scheduler: Any, sde: str = "ddim") -> None:
        self.scheduler, self.sde = scheduler, sde
        self._ddpm: list[float] = []  # DDPM's s of each step, of betas
        self.flows = is_flow(scheduler)
        name = type(scheduler).__name__
        if self.flows:
            self.kind, self._sign = "flow_prediction", 1.0
            self.timesteps, self.levels = self._of_sigmas()
        else:
            if sde != "ddim":
                raise PipelineError(f"the noise of {sde} is that of flow matching, and {name} does not flow")
            if not follows_betas(scheduler):
                raise PipelineError(
                    f"{name}'s noise schedule or prediction is of no kind known here, so its steps are no "
                    "Gaussian decisions; find learns the initial noise of such a pipeline"
                )
            self.kind = str(scheduler.config.get("prediction_type", "epsilon"))
            self.timesteps, self.levels = self._of_betas()
        steps = f"{name} with {scheduler.num_inference_steps} steps"
        self.decisions = range(sum(after.sigma > 0 for _, after in self.levels))
        if not self.decisions:
            raise PipelineError(
                f"{steps} starts where no noise is left, so that there is nothing to decide; take more steps"
            )
        if self.kind == "epsilon" and not self.levels[0][0].alpha:
            raise PipelineError(
                f"{name}'s schedule starts without any signal (zero terminal SNR), of which a denoiser that "
                "predicts noise says nothing"
            )

    def _of_betas(self) -> tuple[Tensor, list[tuple[Level, Level]]]:
        own, ddim = self.scheduler, ddim_of(self.scheduler, set_alpha_to_one=False)
        self.clips = ddim
        timesteps = whole_timesteps(own)
        before = [*timesteps[1:], -1]
        if isinstance(own, DDIMScheduler):  # whose steps have one length
            before = [t - own.config.num_train_timesteps // own.num_inference_steps for t in timesteps]
        alphas = getattr(own, "alphas_cumprod", ddim.alphas_cumprod)
        steps = [(t, alphas[t], alphas[max(0, after)]) for t, after in zip(timesteps, before, strict=True)]
        kept = [(t, alpha, after) for t, alpha, after in steps if after > alpha]
        # in float32, as DDIM itself: near the picture, where the levels hardly differ, digits are lost
        self._ddpm = [
            float((1 - after) / (1 - alpha) * (1 - alpha / after)) ** 0.5 for _, alpha, after in kept
        ]

        def level(alpha: Tensor) -> Level:
            return Level(math.sqrt(float(alpha)), math.sqrt(float(1 - alpha)))

        visited = torch.tensor([t for t, _, _ in kept], dtype=torch.long)
        return visited, [(level(alpha), level(after)) for _, alpha, after in kept]

    def _of_sigmas(self) -> tuple[Tensor, list[tuple[Level, Level]]]:
        own = self.scheduler
        sigmas = own.sigmas.double()
        if own.config.get("invert_sigmas", False):  # Mochi's count the signal, and its velocity turns round
            sigmas, self._sign = 1 - sigmas, -1.0
        first = [i for i in range(len(own.timesteps)) if sigmas[i + 1] < sigmas[i]]  # Heun's come twice
        ts = [Level(1 - t, t) for t in sigmas.tolist()]
        return own.timesteps[first], [(ts[i], ts[i + 1]) for i in first]

    def std(self, step: int, eta: float = 1.0) -> float:
        """The standard deviation s of step `step`, counted from the noise; 0 where it is no decision."""
        now, after = self.levels[step]
        if self.sde != "ddim":
            return self._diffusion(step, eta) * math.sqrt(now.sigma - after.sigma) if after.sigma else 0.0
        if self.flows:
            return after.sigma * math.sin(eta * math.pi / 2)
        return eta * self._ddpm[step]

    def _diffusion(self, step: int, eta: float) -> float:
        """τ of a stochastic differential equation of flow matching."""
        if self.sde == "dance-grpo":
            return eta
        now, after = self.levels[step]
        begins = step == 0 and now.alpha < BEGINNING
        return eta * math.sqrt(now.sigma / (after.alpha if begins else now.alpha))

    def epsilon_weight(self, step: int, eta: float = 1.0) -> float:
        """2 s² / c² of a decision whose mean is … + c ε̂: a squared difference of predicted noise is so many
        divergences of the decisions."""
        (now, after), s = self.levels[step], self.std(step, eta)
        alpha = max(now.alpha, 1e-12)
        if s and self.sde != "ddim":
            drift = 1 / alpha + self._diffusion(step, eta) ** 2 / (2 * now.sigma)
            c = (after.sigma - now.sigma) * drift
        else:
            c = math.sqrt(max(0.0, after.sigma**2 - s**2)) - after.alpha * now.sigma / alpha
        return 2 * s**2 / c**2

    def transition(
        self, prediction: Tensor, step: int, x_t: Tensor, eta: float = 1.0
    ) -> tuple[Tensor, float]:
        """Mean `(B, *latent)`, float32, and standard deviation s of what follows `x_t`.

        Arguments:
            prediction: the denoiser's output f with shape `(B, *latent)`; gradient passes through it.
            step: its number, counted from the noise.
            x_t: the latents with shape `(B, *latent)`.
            eta: η, the share of the noise; 0 is deterministic, the pipeline's own ordinary equation.
        """
        (now, after), s = self.levels[step], self.std(step, eta)
        f, x_t = prediction.float(), x_t.float()
        if self.flows:
            f = self._sign * f
            if s and self.sde != "ddim":
                t, dt = now.sigma, after.sigma - now.sigma
                drift = f + self._diffusion(step, eta) ** 2 / (2 * t) * (x_t + (1 - t) * f)
                return x_t + drift * dt, s
        x_0, epsilon = self._predicted(f, x_t, now)
        return after.alpha * x_0 + math.sqrt(max(0.0, after.sigma**2 - s**2)) * epsilon, s

    def estimate(self, prediction: Tensor, step: int, x_t: Tensor) -> Tensor:
        """x̂_0, `(B, *latent)`, float32, of what `transition` is given."""
        f = prediction.float() * (self._sign if self.flows else 1.0)
        return self._predicted(f, x_t.float(), self.levels[step][0])[0]

    def _predicted(self, f: Tensor, x_t: Tensor, now: Level) -> tuple[Tensor, Tensor]:
        """x̂_0, clipped where the scheduler clips it, and ε̂."""
        alpha, sigma = now.alpha, now.sigma
        match self.kind:
            case "flow_prediction":
                return x_t - sigma * f, x_t + alpha * f
            case "epsilon":
                x_0, epsilon = (x_t - sigma * f) / alpha, f
            case "v_prediction":
                x_0, epsilon = alpha * x_t - sigma * f, alpha * f + sigma * x_t
            case _:
                x_0, epsilon = f, (x_t - alpha * f) / sigma
        config = self.clips.config
        if config.thresholding:
            x_0 = self.clips._threshold_sample(x_0)
        elif config.clip_sample:
            x_0 = x_0.clamp(-config.clip_sample_range, config.clip_sample_range)
        return x_0, epsilon


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's latents are (1 − t) x_0 + t ε."""
    config = scheduler.config
    return (
        type(scheduler).__name__.startswith("FlowMatch")
        or bool(config.get("use_flow_sigmas", False))
        or config.get("prediction_type") == "flow_prediction"
    )


def gaussian_log_prob(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """Log-density of `x`, `(B, *latent)` → `(B,)`: its mean over the latent's elements, in float32."""
    square = ((x.float() - mean.float()) / std).square().flatten(1).mean(1)
    return -0.5 * square - math.log(std) - 0.5 * LOG_2PI
