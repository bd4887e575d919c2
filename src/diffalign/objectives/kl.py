r"""KL divergence of two Gaussians with the same variance.   KL = ‖m − m_0‖² / (2 s²)

References: Fan et al. (NeurIPS 2023), eq. 7, https://arxiv.org/abs/2305.16381
"""

from torch import Tensor


def gaussian_kl(mean: Tensor, other: Tensor, std: float) -> Tensor:
    """From means `(B, *latent)` to `(B,)`: averaged over the latent's elements, as log-probabilities are.

    Raises:
        ValueError: if the shapes differ.
    """
    if mean.shape != other.shape:
        raise ValueError(f"means must have one shape, not {tuple(mean.shape)} and {tuple(other.shape)}")
    return (mean - other).square().flatten(1).mean(1) / (2 * std**2)
