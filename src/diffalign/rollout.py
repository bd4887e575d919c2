"""ROLLOUT: what a policy decided and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.policies.noise import NoiseDistribution

Environment = Callable[[Tensor, str], Tensor]


@dataclass(frozen=True)
class Rollout:
    """A batch of samples.

    Attributes:
        x_T: the decisions, initial noise with shape `(B, *latent)`.
        log_prob: of the decisions under the policy that made them, with shape `(B, 1)`.
        images: pictures `(B, 3, H, W)` or video `(B, F, 3, H, W)`, float32 in [0, 1].
        prompts: one prompt a sample.
        indices: each sample's number, which with the seed determines its noise.
    """

    x_T: Tensor
    log_prob: Tensor
    images: Tensor
    prompts: tuple[str, ...]
    indices: tuple[int, ...]


def collect(
    distribution: NoiseDistribution,
    environment: Environment,
    prompt: str,
    indices: Sequence[int],
    *,
    seed: int,
    stream: str = "train",
    antithetic: bool = False,
) -> Rollout:
    """Draws one sample an index from `distribution` and runs it through `environment`.

    Arguments:
        environment: `(x_T, prompt) → images`, such as a `Sampler`.
        antithetic: samples 2j and 2j + 1 use the noise ε and −ε.
    """
    if antithetic:
        epsilon = seeded_noise(distribution.latent, seed, stream, [index // 2 for index in indices])
        signs = torch.tensor([1.0 if index % 2 == 0 else -1.0 for index in indices])
        epsilon = epsilon * signs.view(-1, *[1] * (epsilon.ndim - 1))
    else:
        epsilon = seeded_noise(distribution.latent, seed, stream, indices)
    with torch.no_grad():
        x_T = distribution.transform(epsilon, distribution.components(seed, stream, indices))
        log_prob = distribution.log_prob(x_T)
    images = environment(x_T, prompt)
    return Rollout(x_T, log_prob, images, (prompt,) * len(x_T), tuple(indices))
