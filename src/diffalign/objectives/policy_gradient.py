r"""Policy gradient with importance sampling.   L = −E[ρ A],   ρ = exp(log π − log π_old)

Symbols:    ρ = ratio, A = advantage
References: Williams (1992); as a trajectory objective of diffusion models, Black et al. (ICLR 2024),
            eq. 4 (DDPO-IS), https://arxiv.org/abs/2305.13301
"""

from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics, check_shapes, diagnose


def policy_gradient_loss(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor
) -> tuple[Tensor, Diagnostics]:
    """The loss, a scalar, of `log_prob`, `old_log_prob` and `advantage`, all with shape `(B, K)`.

    Raises:
        ValueError: if the shapes differ.
    """
    check_shapes(log_prob, old_log_prob, advantage)
    log_ratio = log_prob - old_log_prob
    return -(log_ratio.exp() * advantage).mean(), diagnose(log_ratio)
