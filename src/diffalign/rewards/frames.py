"""Embeddings of videos, and how steady they are: the mean cosine between those of successive frames.

References: Esser et al. (ICCV 2023), section 4.1, https://arxiv.org/abs/2302.03011; FIND, Table 5
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor


def mean_of_frames(images: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """Embeddings `(B, D)`, float32, of pictures `(B, 3, H, W)`; of videos `(B, F, …)` their frames' mean."""
    frames = images if images.ndim == 5 else images[:, None]
    return embed(frames.flatten(0, 1)).float().view(*frames.shape[:2], -1).mean(1)


def frame_consistency(video: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
    """From videos `(B, F, 3, H, W)` in [0, 1] to `(B,)`; 1 if all frames of a video are alike.

    Arguments:
        embed: pictures `(B, 3, H, W)` to embeddings `(B, D)`, such as CLIP's.

    Raises:
        ValueError: if a video has less than two frames.
    """
    if video.ndim != 5 or video.shape[1] < 2:
        raise ValueError(f"video has shape (B, F, 3, H, W), F at least 2, not {tuple(video.shape)}")
    frames = embed(video.flatten(0, 1)).unflatten(0, video.shape[:2])
    return F.cosine_similarity(frames[:, 1:], frames[:, :-1], dim=-1).mean(1)
