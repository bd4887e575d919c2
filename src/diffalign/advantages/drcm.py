r"""Dynamic reward calibration (DRCM).   r* = r − V_φ(μ, σ)

V_φ, a three-layer perceptron, predicts the expected reward of the distribution (μ, σ). It is
trained online on all rewards so far, each with the (μ, σ) that its sample was drawn from.

Symbols:    μ, σ = mean, std; r = reward; V_φ = ValueNet
Deviations: the published script trains V_φ on copies of a single reward; here, on all rewards so far.
            V_φ learns standardised rewards, so that it starts at their running mean instead of at 0.
            For a reward whose mean is far from 0, such as CLIPScore, the first advantages would
            otherwise be that mean, and Adam's moments would carry it through the whole run.
            The published network is 256 wide, has a layer more and also reads the prompt's embedding, which
            is the same throughout a run; here, three layers of width 64 that read μ and σ.
References: Chen et al. (ACM MM 2024), eqs. 9–10, https://arxiv.org/abs/2407.19453
"""

import torch
from torch import Tensor, nn


class ValueNet(nn.Module):
    """V_φ(μ, σ).

    Arguments:
        dimensions: number of elements of μ (and of σ).
        width: of the two hidden layers.
    """

    def __init__(self, dimensions: int, width: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * dimensions, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
        )

    def forward(self, mean: Tensor, std: Tensor) -> Tensor:
        """Expected rewards `(B,)` of distributions with `mean` and `std` of shape `(B, *latent)`."""
        # σ − 1 rather than σ, so that the input of N(0, I) is zero
        values: Tensor = self.layers(torch.cat([mean.flatten(1), std.flatten(1) - 1], 1))
        return values[:, 0]


def value_loss(value: Tensor, reward: Tensor) -> Tensor:
    """Mean squared error of predictions `(B,)` against rewards `(B,)` (eq. 10).

    Raises:
        ValueError: if the shapes differ, which would broadcast.
    """
    if value.shape != reward.shape or value.ndim != 1:
        raise ValueError(f"value {tuple(value.shape)} and reward {tuple(reward.shape)} must both be (B,)")
    return (value - reward).square().mean()
