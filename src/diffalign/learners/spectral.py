r"""Spectral evolution search: cross-entropy search over the lowest wavelet band of one noise.

    x_T = x − B^T B x + B^T z,   z ~ N(m, s²),   (m, s) ← mean and std of the k best z of all generations

B takes Haar's lowest band: B x = means of 2^L × 2^L blocks, times 2^L. The elites of a generation compete
with those before them by the scores that they got: none is sampled again. All else, the high band of
x ~ N(0, I), stays as it is. Candidates are scored on previews of few steps; the noise of the best is then
sampled with all steps.

Symbols:    B = low_band, B^T = spread, L = level, x = fixed, m = mean, s = std, k = elites × population
Deviations: L is less than the published 4 where the latents' sides do not divide by 2^4; there the paper's
            release pads them. As many of the best are sampled with all steps as are kept, not one alone.
References: Spectral Evolution Search (2026), https://arxiv.org/abs/2602.03208
            Rubinstein (1999), cross-entropy method, https://doi.org/10.1023/A:1010091220143
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffalign.diffusion.packing import Grid, on_grid, packed
from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.previews import PreviewSearch
from diffalign.settings.fields import ConfigError

LEVEL = 4  # of the Haar transform, at most: blocks of 16 × 16


class Spectral(PreviewSearch):
    """Only the low band moves.

    Attributes:
        level, grid: of the Haar transform, and of packed latents.
        fixed: the noise whose high band all candidates share, `(1, *latent)`.
        elites: the bands of the best so far, best first, `(k, C, H / 2^L, W / 2^L)`.
        scores: their rewards, `(k,)`.

    Raises:
        ConfigError: if the latents have no band.
    """

    remembered = "elites", "scores"

    def prepare(self) -> None:
        super().prepare()
        latent, grid = self.environment.latent_shape, self.environment.grid
        self.level, self.grid = deepest_level(grid or latent, LEVEL), grid
        self.fixed = seeded_noise(latent, self.config.seed, "high band", [0])
        self.elites, self.scores = low_band(self.fixed, self.level, grid)[:0], torch.empty(0)

    def candidates(self, epsilon: Tensor) -> Tensor:
        z = low_band(epsilon, self.level, self.grid)
        if len(self.elites) > 1:
            z = self.elites.mean(0) + self.elites.std(0) * z
        return self.fixed + spread(z - low_band(self.fixed, self.level, self.grid), self.level, self.grid)

    def move(self, x_T: Tensor, rewards: Tensor) -> None:
        count = max(2, round(self.config.elites * self.config.population))
        scores = torch.cat([self.scores, rewards])
        order = scores.argsort(descending=True, stable=True)[:count]
        self.elites = torch.cat([self.elites, low_band(x_T, self.level, self.grid)])[order]
        self.scores = scores[order]


def deepest_level(latent_shape: Sequence[int], at_most: int) -> int:
    """The deepest level of a Haar transform whose blocks divide latents of this shape.

    Raises:
        ConfigError: if there is none.
    """
    height, width = latent_shape[-2:]
    for level in range(at_most, 0, -1):
        if height % 2**level == width % 2**level == 0:
            return level
    raise ConfigError(f"spectral search needs latents with even sides, not of {height}×{width}")


def low_band(x: Tensor, level: int, grid: Grid = None) -> Tensor:
    """Haar's lowest band `(B, …, H / 2^L, W / 2^L)` of latents `(B, …, H, W)`, or on a grid, orthonormal."""
    x = on_grid(x, grid)
    band: Tensor = F.avg_pool2d(x.flatten(1, -3), 2**level).unflatten(1, x.shape[1:-2])
    return band * float(2**level)


def spread(z: Tensor, level: int, grid: Grid = None) -> Tensor:
    """Latents with the lowest band `z` and nothing else."""
    side: int = 2**level
    return packed(z.repeat_interleave(side, -2).repeat_interleave(side, -1) / side, grid)
