r"""Spectral evolution search: cross-entropy search over the noise's lowest wavelet band.

    z = B x_T (Haar means of 2^L × 2^L blocks),   z ~ N(m, s²),   (m, s) ← mean and std of the elites

Candidates are scored on cheap previews of few steps; the noise of the best previews is then sampled with
all steps. What lies outside the band is drawn anew for each candidate.

Symbols:    B = band, m = mean, s = std
References: Spectral Evolution Search (2026), https://arxiv.org/abs/2602.03208
            Rubinstein (1999), cross-entropy method, https://doi.org/10.1023/A:1010091220143
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from diffalign.learners.contract import Request, Update, check_rewards
from diffalign.learners.result import SearchResult
from diffalign.learners.search import SearchLearner
from diffalign.rollout import Rollout, sample_noise
from diffalign.settings.fields import ConfigError

LEVEL = 2  # of the Haar transform: blocks of 4 × 4
LEAST_STD = 0.1  # of the band, so that a search never ends on one point


class Spectral(SearchLearner):
    """Pictures of the noise of the best previews.

    Its rewards are those of all previews, then those of the pictures, to which `indices` point.

    Attributes:
        preview: a sampler of fewer steps; `environment` itself unless it is set.
        mean, std: of the band, `(1, C, H / 2^L, W / 2^L)`.

    Raises:
        ConfigError: if the latents have no band.
    """

    remembered = "mean", "std"

    def prepare(self) -> None:
        super().prepare()
        check_latents(self.environment.latent_shape)
        self.preview = self.environment
        self.mean = low_band(torch.zeros(1, *self.environment.latent_shape), LEVEL)
        self.std = torch.ones_like(self.mean)

    @property
    def previewing(self) -> bool:
        """Whether the next samples are previews."""
        return self.queries < self.config.queries - self.config.keep

    def ask(self) -> Request:
        """A population of previews, and at last the kept ones as pictures."""
        left = self.total - self.config.keep - self.queries  # previews
        return self.next_samples(min(self.config.population, left) if self.previewing else self.config.keep)

    def sample(self, request: Request) -> Iterator[Rollout]:
        """Previews of the distribution's noise, or pictures of the best previews'."""
        environment, x_T = self.environment, self.best.x_T
        if self.previewing:
            environment, x_T = self.preview, self.candidates(self.draw(request))
        yield sample_noise(environment, self.prompts[0], x_T, request.groups)

    def candidates(self, epsilon: Tensor) -> Tensor:
        return epsilon + spread(self.mean + (self.std - 1) * low_band(epsilon, LEVEL), LEVEL)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Keeps the best previews and moves the distribution to the elites, or orders the pictures."""
        check_rewards(rollout, rewards)
        if not self.previewing:
            order, first = rewards.argsort(descending=True, stable=True), len(self.best.rewards)
            self.best = SearchResult(
                rollout.x_T[order],
                rollout.images[order],
                torch.cat([self.best.rewards, rewards]),
                tuple(first + i for i in order.tolist()),
            )
            self.rounds += 1
            return self.update(rollout, rewards)
        count = min(len(rewards), max(2, round(self.config.elites * len(rewards))))
        elites = low_band(rollout.x_T[rewards.topk(count).indices], LEVEL)
        self.mean = elites.mean(0, keepdim=True)
        self.std = elites.std(0, keepdim=True, correction=0).clamp_min(LEAST_STD)
        return replace(super().tell(rollout, rewards), forwards=len(rewards) * self.preview.forwards)


def check_latents(latent_shape: Sequence[int]) -> None:
    """Raises a `ConfigError` if latents of this shape have no lowest band."""
    if any(size % 2**LEVEL for size in latent_shape[-2:]):
        size = "×".join(map(str, latent_shape[-2:]))
        raise ConfigError(f"spectral searches latents whose sides divide by {2**LEVEL}, not of {size}")


def low_band(x: Tensor, level: int) -> Tensor:
    """Haar's lowest band `(B, …, H / 2^L, W / 2^L)` of latents `(B, …, H, W)`, orthonormal."""
    band: Tensor = F.avg_pool2d(x.flatten(1, -3), 2**level).unflatten(1, x.shape[1:-2])
    return band * float(2**level)


def spread(z: Tensor, level: int) -> Tensor:
    """Latents with the lowest band `z` and nothing else."""
    side: int = 2**level
    return z.repeat_interleave(side, -2).repeat_interleave(side, -1) / side
