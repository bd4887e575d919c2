r"""DPOK.   L = α L_PPO + β E[KL(p_θ(x_{t−1} | x_t) ‖ p_pretrained(x_{t−1} | x_t))]

    KL = ‖m − m_0‖² / (2 s²)  of two Gaussians with the same variance

Symbols:    α = alpha, β = beta, m = mean, m_0 = other, s = std
Deviations: the KL is over the visited decisions, as in the paper's implementation, and a mean over the
            elements of a latent, as log-probabilities are. The published code takes ‖ε̂ − ε̂_0‖² of the
            noise predictions in its place, which is the KL times 2 s² / c² where m = … + c ε̂: at the last
            but one of 20 steps a fifteenth of it (`dpok_regulariser`).
References: Fan et al. (NeurIPS 2023), algorithm 1 and eq. 7, https://arxiv.org/abs/2305.16381
"""

from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics
from diffalign.objectives.ppo import ppo_loss


def dpok_loss(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    kl: Tensor,
    *,
    clip_range: float,
    alpha: float,
    beta: float,
) -> tuple[Tensor, Diagnostics]:
    """The loss, a scalar, of log-probabilities, advantages and divergences, all with shape `(B, K)`.

    Raises:
        ValueError: if the shapes differ.
    """
    if kl.shape != log_prob.shape:
        raise ValueError(f"kl must be (B, K) as log_prob is, {tuple(log_prob.shape)}, not {tuple(kl.shape)}")
    loss, diagnostics = ppo_loss(log_prob, old_log_prob, advantage, clip_range=clip_range)
    return alpha * loss + beta * kl.mean(), diagnostics


def gaussian_kl(mean: Tensor, other: Tensor, std: float) -> Tensor:
    """From means `(B, *latent)` to `(B,)`: averaged over the latent's elements, as log-probabilities are.

    Raises:
        ValueError: if the shapes differ.
    """
    if mean.shape != other.shape:
        raise ValueError(f"means must have one shape, not {tuple(mean.shape)} and {tuple(other.shape)}")
    return (mean - other).square().flatten(1).mean(1) / (2 * std**2)
