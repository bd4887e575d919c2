"""DDPO's JPEG rewards: the size of the picture's JPEG file at quality 95, in kilobytes (10³ bytes).

References: Black et al. (ICLR 2024), https://arxiv.org/abs/2305.13301
"""

import io

import torch
from PIL import Image
from torch import Tensor

from diffalign.rewards.scorer import by_frame

QUALITY = 95  # DDPO's
KILOBYTE = 1000  # bytes


def jpeg_incompressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Kilobytes `(B,)` of pictures `(B, 3, H, W)` in [0, 1]; of video the mean of its frames'."""
    return by_frame(_sizes, images, prompts)


def jpeg_compressibility(images: Tensor, prompts: list[str]) -> Tensor:
    """Minus kilobytes `(B,)` of pictures `(B, 3, H, W)` in [0, 1]; of video the mean of its frames'."""
    return -jpeg_incompressibility(images, prompts)


def _sizes(pictures: list[Image.Image], prompts: list[str]) -> Tensor:
    """Kilobytes of the pictures' files; prompts do not matter."""
    sizes = []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "jpeg", quality=QUALITY)
        sizes.append(file.tell() / KILOBYTE)
    return torch.tensor(sizes)
