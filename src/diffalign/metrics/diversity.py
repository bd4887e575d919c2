r"""How different the pictures of one prompt are from each other.

    mean pairwise distance = mean over i ≠ j of 1 − cos(e_i, e_j)
    Vendi score = exp(−Σ λ log λ),    λ = eigenvalues of K/n,  K_ij = cos(e_i, e_j)

The Vendi score is the effective number of different pictures, from 1 (all alike) to n (all
orthogonal); it grows with n, so compare it at equal n only.

    inception score = exp(mean over x of KL(p(y | x) ‖ p(y))),    p(y | x) = softmax(f(x))

With CLIP features as f, as they leave its projection and not made unit vectors, it is at home with any
picture, as Inception's classes are not. B²-DiffuRL reports 1.25 to 1.42; orthogonal unit vectors of 1024
dimensions would give 1.001.

Symbols:    e = embeddings, λ = eigenvalues, n = number of pictures, f = features
References: Friedman and Dieng (TMLR 2023), eq. 3, https://arxiv.org/abs/2210.02410
            Salimans et al. (NeurIPS 2016), https://arxiv.org/abs/1606.03498
            on CLIP features, Hu et al. (CVPR 2025), appendix F.2, https://arxiv.org/abs/2503.11240
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

PIXELS = 16


@dataclass(frozen=True)
class Embedder:
    """Pictures `(B, 3, H, W)` to embeddings `(B, D)`; `on` names the space, for `diversity_on`."""

    on: Literal["clip", "pixels"]
    function: Callable[[Tensor], Tensor]

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images).float().cpu()


def embedder(model: str) -> Embedder:
    """What diversity is measured on: the embedded world's CLIP for the model "world", else pixels."""
    if model != "world":
        return Embedder("pixels", embed_pixels)
    from diffalign.rewards.world_clip import WorldClip  # loads transformers

    return Embedder("clip", WorldClip().embed_images)


def embed_pixels(images: Tensor) -> Tensor:
    """Pictures `(B, 3, H, W)`, or video `(B, F, 3, H, W)`, averaged to 16×16 pixels, less each one's mean.

    With shape `(B, D)`, D = 768 a frame; the cosine of two is the correlation of their pixels.
    """
    frames = images.float().flatten(0, -4)
    pixels = F.adaptive_avg_pool2d(frames, PIXELS).reshape(len(images), -1)
    return pixels - pixels.mean(1, keepdim=True)


def mean_pairwise_distance(embeddings: Tensor) -> float:
    """Mean cosine distance over the pairs of `embeddings` with shape `(n, D)`, in [0, 2]; 0 if n is 1."""
    unit = _unit(embeddings)
    n = len(unit)
    if n == 1:
        return 0.0
    sum_of_cosines = unit.sum(0).square().sum().item() - n  # over i ≠ j
    return 1 - sum_of_cosines / (n * (n - 1))


def vendi_score(embeddings: Tensor) -> float:
    """Effective number of different pictures, from 1 to n, of `embeddings` with shape `(n, D)`."""
    unit = _unit(embeddings)
    # the eigenvalues of K/n are the squared singular values of the embeddings over √n
    eigenvalues = torch.linalg.svdvals(unit / len(unit) ** 0.5).square()
    return torch.special.entr(eigenvalues).sum().exp().item()  # eq. 3


def _unit(embeddings: Tensor) -> Tensor:
    """Unit embeddings in float64; a zero one gets a direction of its own, so that blanks are alike."""
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"embeddings must have shape (n, D), n at least 1, not {tuple(embeddings.shape)}")
    embeddings = embeddings.double()
    blank = (embeddings.norm(dim=1, keepdim=True) <= 1e-12).double()
    return F.normalize(torch.cat([embeddings * (1 - blank), blank], 1), dim=1)


def inception_score(features: Tensor, splits: int = 1, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation over `splits` parts of the inception score of logits or features `(n, D)`.

    From 1, if all are alike, to D, or to the number of pictures in a part. The classic one reads Inception's
    logits and has 10 parts.

    Arguments:
        seed: of the order in which pictures are dealt into parts, which are as equal as can be.

    Raises:
        ValueError: if the shape is another, or a part has less than two pictures.
    """
    from torchmetrics.image.inception import InceptionScore

    n, least = len(features), 1 if splits == 1 else 2 * splits
    if features.ndim != 2 or n < least:
        shape = tuple(features.shape)
        raise ValueError(f"features in {splits} parts have shape (n, D), n at least {least}, not {shape}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    scores = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # it draws an order of its own
        warnings.simplefilter("ignore", UserWarning)  # that it keeps the features
        for part in features.double().cpu()[order].tensor_split(splits):
            metric = InceptionScore(torch.nn.Identity(), splits=1)
            metric.update(part)
            scores.append(metric.compute()[0])
    found = torch.stack(scores)
    return float(found.mean()), 0.0 if splits == 1 else float(found.std())
