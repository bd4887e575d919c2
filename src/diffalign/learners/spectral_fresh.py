r"""Spectral search with a fresh high band: our variant of spectral evolution search.

    z = B x_T (2^L × Haar means of 2^L × 2^L blocks),   z ~ N(m, s²),   (m, s) ← mean and std of the elites

It differs from the published search (spectral.py) in three ways: what lies outside the band is drawn anew
for each candidate, so that the kept pictures differ more; only elites of the last population move the
distribution, whose std has a floor; and the band is finer, of level 2.

Symbols:    B = low_band, m = mean, s = std
References: Spectral Evolution Search (2026), https://arxiv.org/abs/2602.03208
            Rubinstein (1999), cross-entropy method, https://doi.org/10.1023/A:1010091220143
"""

import torch
from torch import Tensor

from diffalign.learners.previews import PreviewSearch
from diffalign.learners.spectral import deepest_level, low_band, spread

LEVEL = 2  # of the Haar transform, at most: blocks of 4 × 4
LEAST_STD = 0.1  # of the band, so that a search never ends on one point


class SpectralFresh(PreviewSearch):
    """The low band moves, and the high band is drawn anew.

    Attributes:
        level, grid: of the Haar transform, and of packed latents.
        mean, std: of the band, `(1, C, H / 2^L, W / 2^L)`.

    Raises:
        ConfigError: if the latents have no band.
    """

    remembered = "mean", "std"

    def prepare(self) -> None:
        super().prepare()
        latent, grid = self.environment.latent_shape, self.environment.grid
        self.level, self.grid = deepest_level(grid or latent, LEVEL), grid
        self.mean = low_band(torch.zeros(1, *latent), self.level, grid)
        self.std = torch.ones_like(self.mean)

    def candidates(self, epsilon: Tensor) -> Tensor:
        z = low_band(epsilon, self.level, self.grid)
        return epsilon + spread(self.mean + (self.std - 1) * z, self.level, self.grid)

    def move(self, x_T: Tensor, rewards: Tensor) -> None:
        count = min(len(rewards), max(2, round(self.config.elites * len(rewards))))
        elites = low_band(x_T[rewards.topk(count).indices], self.level, self.grid)
        self.mean = elites.mean(0, keepdim=True)
        self.std = elites.std(0, keepdim=True, correction=0).clamp_min(LEAST_STD)
