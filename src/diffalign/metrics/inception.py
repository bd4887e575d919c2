"""The classifier of the classic inception score: Inception v3, which knows ImageNet's 1000 classes.

Checkpoint: timm/inception_v3.tf_in1k, model.safetensors (Apache-2.0). These are the weights of TensorFlow's
            slim library. The score's first program reads a graph of 2015 with 1008 outputs, so that figures
            compare with each other, and only roughly with those of other programs.
References: Szegedy et al. (CVPR 2016), https://arxiv.org/abs/1512.00567
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffalign.diffusion.loading import default_device
from diffalign.rewards import RewardError
from diffalign.rewards.checkpoints import check_folder, local_first, one_line, weights_of

PUBLISHED = "timm/inception_v3.tf_in1k"
FILES = ("model.safetensors",)
SIDE = 299  # of the input
FLAT, TALL = (1, 7), (7, 1)  # kernels
FORK = {"a": (1, 3), "b": (3, 1)}  # kernels of two convolutions beside each other
#: A block's branches, by name. Each is convolutions one after the other: channels, kernel and perhaps stride.
Branches = dict[str, list[tuple[Any, ...]]]


class Convolution(nn.Sequential):
    """Convolution, batch normalisation, ReLU: from `(B, inputs, H, W)` to `(B, outputs, H', W')`.

    `padded`, it keeps height and width, unless it has a stride.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Any, stride: int = 1, padded: bool = True) -> None:
        super().__init__()
        padding = "same" if padded and stride == 1 else 0
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.relu = nn.ReLU()


class Mixed(nn.Module):
    """A block: branches of convolutions, and one that pools; their ends are concatenated.

    Arguments:
        inputs: channels.
        branches: of convolutions.
        pooled: channels of the convolution after average pooling; with 0, maxima with stride 2 instead.
    """

    def __init__(self, inputs: int, branches: Branches, pooled: int = 0) -> None:
        super().__init__()
        self.names: list[list[list[str]]] = []  # by branch: of its convolutions, those of a fork together
        self.outputs = pooled or inputs
        for branch, shapes in branches.items():
            width, steps = inputs, list[list[str]]()
            for number, (channels, kernel, *stride) in enumerate(shapes, 1):
                name = f"{branch}_{number}" if len(shapes) > 1 else branch
                kernels = FORK if kernel is FORK else {"": kernel}
                for side, size in kernels.items():
                    self.add_module(name + side, Convolution(width, channels, size, *stride))
                steps.append([name + side for side in kernels])
                width = channels * len(kernels)
            self.names.append(steps)
            self.outputs += width
        self.branch_pool = Convolution(inputs, pooled, 1) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, inputs, H, W)` to `(B, outputs, H', W')`."""
        ends = []
        for branch in self.names:
            y = x
            for names in branch:
                y = torch.cat([self.get_submodule(name)(y) for name in names], 1)
            ends.append(y)
        pool = self.branch_pool
        ends.append(F.max_pool2d(x, 3, 2) if pool is None else pool(F.avg_pool2d(x, 3, 1, 1)))
        return torch.cat(ends, 1)


def _middle(c: int) -> tuple[Branches, int]:
    """A block at 17×17 pixels with `c` inner channels."""
    twice = [(c, 1), (c, TALL), (c, FLAT), (c, TALL), (192, FLAT)]
    once = [(c, 1), (c, FLAT), (192, TALL)]
    return {"branch1x1": [(192, 1)], "branch7x7": once, "branch7x7dbl": twice}, 192


#: Blocks at 35×35 and at 8×8 pixels.
_FINE: Branches = {
    "branch1x1": [(64, 1)],
    "branch5x5": [(48, 1), (64, 5)],
    "branch3x3dbl": [(64, 1), (96, 3), (96, 3)],
}
_COARSE: Branches = {
    "branch1x1": [(320, 1)],
    "branch3x3": [(384, 1), (384, FORK)],
    "branch3x3dbl": [(448, 1), (384, 3), (384, FORK)],
}
_SMALLER: Branches = {
    "branch3x3": [(192, 1), (320, 3, 2)],
    "branch7x7x3": [(192, 1), (192, FLAT), (192, TALL), (192, 3, 2)],
}
#: The arguments `branches` and `pooled` of each `Mixed`, in order.
_BLOCKS: dict[str, tuple[Branches, int]] = {
    "Mixed_5b": (_FINE, 32),
    "Mixed_5c": (_FINE, 64),
    "Mixed_5d": (_FINE, 64),
    "Mixed_6a": ({"branch3x3": [(384, 3, 2)], "branch3x3dbl": [(64, 1), (96, 3), (96, 3, 2)]}, 0),
    "Mixed_6b": _middle(128),
    "Mixed_6c": _middle(160),
    "Mixed_6d": _middle(160),
    "Mixed_6e": _middle(192),
    "Mixed_7a": (_SMALLER, 0),
    "Mixed_7b": (_COARSE, 192),
    "Mixed_7c": (_COARSE, 192),
}


class InceptionV3(nn.Sequential):
    """From pictures `(B, 3, H, W)` in [0, 1] to logits `(B, classes)`; weights are named as in timm."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__(
            OrderedDict(
                Conv2d_1a_3x3=Convolution(3, 32, 3, 2),
                Conv2d_2a_3x3=Convolution(32, 32, 3, padded=False),
                Conv2d_2b_3x3=Convolution(32, 64, 3),
                Pool1=nn.MaxPool2d(3, 2),
                Conv2d_3b_1x1=Convolution(64, 80, 1),
                Conv2d_4a_3x3=Convolution(80, 192, 3, padded=False),
                Pool2=nn.MaxPool2d(3, 2),
            )
        )
        width = 192
        for name, (branches, pooled) in _BLOCKS.items():
            self.add_module(name, block := Mixed(width, branches, pooled))
            width = block.outputs
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)`; pictures are resized bilinearly to 299×299."""
        size = (SIDE, SIDE)
        x = 2 * F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False) - 1
        for layer in self:
            x = layer(x)
        return x


def load_inception(
    checkpoint: str | Path = PUBLISHED, device: str | torch.device | None = None
) -> InceptionV3:
    """The classifier with the weights of a folder, or of a repository of the hub.

    Arguments:
        device: the accelerator, if there is one, by default.

    Raises:
        RewardError: if the weights are missing, or are another network's.
    """
    source, device = str(checkpoint), device or default_device()
    check_folder(source)
    try:
        weights = local_first(lambda local: weights_of(source, FILES, local), source)
        network = InceptionV3(len(weights["fc.bias"]))
        network.load_state_dict({n: value for n, value in weights.items() if not n.startswith("AuxLogits.")})
    except (OSError, KeyError, RuntimeError, ValueError) as error:  # raised for missing or other files
        raise RewardError(
            f"cannot load Inception v3 from {source!r}: {one_line(error)}; give its folder with "
            f"--inception, or fetch it where there is a network: `hf download {PUBLISHED}`"
        ) from error
    return network.eval().requires_grad_(False).to(device)
