r"""How different the pictures of one prompt are from each other.

    mean pairwise distance = mean over i ≠ j of 1 − cos(e_i, e_j)
    Vendi score = exp(−Σ λ log λ),    λ = eigenvalues of K/n,  K_ij = cos(e_i, e_j)

The Vendi score is the effective number of different pictures, from 1 (all alike) to n (all
orthogonal); it grows with n, so compare it at equal n only. One picture alone has neither.

    inception score = exp(mean over x of KL(p(y | x) ‖ p(y))),    p(y | x) = softmax(f(x))

With CLIP features as f, as they leave its projection and not normalised, it suits any picture, unlike
Inception's classes. B²-DiffuRL reports 1.25 to 1.42; orthogonal unit vectors of 1024
dimensions would give 1.001.

Symbols:    e = embeddings, λ = eigenvalues, n = number of pictures, f = features
References: Friedman and Dieng (TMLR 2023), eq. 3, https://arxiv.org/abs/2210.02410
            Arvesen (1969), "Jackknifing U-statistics" (the distance's interval)
            Salimans et al. (NeurIPS 2016), https://arxiv.org/abs/1606.03498
            on CLIP features, Hu et al. (CVPR 2025), appendix F.2, https://arxiv.org/abs/2503.11240
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diffalign.rewards.frames import mean_of_frames
from diffalign.world import WORLD_MODELS

PIXELS = 16  # a side: coarse enough to compare compositions and not textures
TINY = 1e-12  # a norm below which an embedding has no direction


@dataclass(frozen=True)
class Embedder:
    """A function from pictures `(B, 3, H, W)` or video `(B, F, 3, H, W)` to embeddings `(B, D)`, float32 on
    the CPU.

    Attributes:
        on: the name of the space.
        frames: the function from single frames, as pictures, where that is another.
    """

    on: Literal["clip", "pixels"]
    function: Callable[[Tensor], Tensor]
    frames: Callable[[Tensor], Tensor] | None = None

    def __call__(self, images: Tensor) -> Tensor:
        return self.function(images).float().cpu()


def embedder(model: str) -> Embedder:
    """The embedder for measuring diversity: the embedded world's CLIP for its models, else pixels."""
    if model not in WORLD_MODELS:
        return Embedder("pixels", embed_pixels)
    from diffalign.rewards.world_clip import WorldClip  # loads transformers

    clip = WorldClip()
    return Embedder("clip", partial(mean_of_frames, embed=clip.embed_images), clip.embed_images)


def embed_pixels(images: Tensor) -> Tensor:
    """Pictures `(B, 3, H, W)` or video `(B, F, 3, H, W)`, averaged to 16×16 pixels and centred.

    The result has shape `(B, D)`, D = 768 a frame; the cosine of two is the correlation of their pixels.
    """
    frames = images.float().flatten(0, -4)
    pixels = F.adaptive_avg_pool2d(frames, PIXELS).reshape(len(images), -1)
    return pixels - pixels.mean(1, keepdim=True)


def mean_pairwise_distance(embeddings: Tensor) -> float | None:
    """Mean cosine distance over the pairs of `embeddings` with shape `(n, D)`, in [0, 2]; None if n is 1.

    Raises:
        ValueError: if the shape is another.
    """
    unit = _unit(embeddings)
    n = len(unit)
    if n == 1:
        return None
    sum_of_cosines = unit.sum(0).square().sum().item() - n  # over i ≠ j
    return 1 - sum_of_cosines / (n * (n - 1))


def distance_by_picture(embeddings: Tensor) -> Tensor:
    """What each of `embeddings`, `(n, D)`, contributes to their mean pairwise distance d, its mean: `(n,)`.

    The jackknife's pseudo-values n d − (n − 1) d₋ᵢ, which give d an interval as other means have. As each
    pair is of two pictures, they vary twice as much as a picture's mean distance to the others.

    Raises:
        ValueError: if the shape is another, or n is below 3.
    """
    unit = _unit(embeddings)
    n = len(unit)
    if n < 3:
        raise ValueError(f"the share of a picture in a mean distance takes 3 pictures, not {n}")
    distances = 1 - (unit @ unit.sum(0) - 1) / (n - 1)  # of each from the others
    return (2 * (n - 1) * distances - n * distances.mean()) / (n - 2)


def vendi_score(embeddings: Tensor) -> float | None:
    """Effective number of different pictures, from 1 to n, of `embeddings` with shape `(n, D)`; None if n
    is 1.

    Raises:
        ValueError: if the shape is another.
    """
    unit = _unit(embeddings)
    if len(unit) == 1:
        return None
    # the eigenvalues of K/n are the squared singular values of the embeddings over √n
    eigenvalues = torch.linalg.svdvals(unit / len(unit) ** 0.5).square()
    return float(torch.special.entr(eigenvalues).sum().exp())  # eq. 3


def mean_measured(values: Iterable[float | None]) -> float | None:
    """The mean of those that could be measured, such as over prompts; None if none could."""
    measured = [value for value in values if value is not None]
    return sum(measured) / len(measured) if measured else None


def _unit(embeddings: Tensor) -> Tensor:
    """Unit embeddings `(n, D + 1)` in float64; zeros share the last direction, and so are alike."""
    if embeddings.ndim != 2 or not len(embeddings):
        raise ValueError(f"embeddings must have shape (n, D), n at least 1, not {tuple(embeddings.shape)}")
    embeddings = embeddings.double()
    blank = (embeddings.norm(dim=1, keepdim=True) <= TINY).double()
    return F.normalize(torch.cat([embeddings * (1 - blank), blank], 1), dim=1)


def inception_score(features: Tensor, splits: int = 1, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation, over `splits`, of the inception score of logits or features `(n, D)`.

    The score lies between 1, if all are alike, and D or the number of pictures in a split. The classic score
    is that of Inception's logits, with 10 splits.

    Arguments:
        splits: into which the pictures are divided at random, as equally as possible.
        seed: of the division.

    Raises:
        ValueError: if the shape is another, or a split has less than two pictures.
    """
    from torchmetrics.image.inception import InceptionScore

    n, least = len(features), 1 if splits == 1 else 2 * splits
    if features.ndim != 2 or n < least:
        shape = tuple(features.shape)
        raise ValueError(f"features in {splits} splits have shape (n, D), n at least {least}, not {shape}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    scores = []
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # torchmetrics draws an order
        warnings.simplefilter("ignore", UserWarning)  # torchmetrics warns that it keeps the features
        for split in features.double().cpu()[order].tensor_split(splits):
            metric = InceptionScore(torch.nn.Identity(), splits=1)
            metric.update(split)
            scores.append(metric.compute()[0])
    stacked = torch.stack(scores)
    return float(stacked.mean()), 0.0 if splits == 1 else float(stacked.std())
