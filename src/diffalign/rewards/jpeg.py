"""DDPO's JPEG rewards: the size of the picture's JPEG file at quality 95, in kilobytes (10³ bytes).

References: Black et al. (ICLR 2024), https://arxiv.org/abs/2305.13301
"""

from __future__ import annotations

import io

import torch
from torch import Tensor

from diffalign.rewards.scorer import as_pictures

QUALITY = 95


def jpeg_incompressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Kilobytes `(B,)` of pictures `(B, 3, H, W)` in [0, 1]."""
    sizes = []
    for picture in as_pictures(images):
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=QUALITY)
        sizes.append(file.tell() / 1000)
    return torch.tensor(sizes)


def jpeg_compressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Minus kilobytes `(B,)` of pictures `(B, 3, H, W)` in [0, 1]."""
    return -jpeg_incompressibility(images, prompts)
