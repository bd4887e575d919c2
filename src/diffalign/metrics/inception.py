"""The classifier of the classic inception score: Inception v3, which knows ImageNet's 1000 classes.

Checkpoint: timm/inception_v3.tf_in1k, model.safetensors (Apache-2.0). These are the weights of TensorFlow's
            slim library. The score's first program reads a graph of 2015 with 1008 outputs, so that figures
            compare with each other, and only roughly with those of other programs.
References: Szegedy et al. (CVPR 2016), https://arxiv.org/abs/1512.00567
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffalign.rewards import RewardError
from diffalign.rewards.checkpoints import check_folder, local_first, one_line, weights_of

PUBLISHED = "timm/inception_v3.tf_in1k"
FILES = ("model.safetensors",)
SIDE = 299  # of the input
Size = tuple[int, int]
#: Channels, kernel, stride and padding of a convolution.
Shape = tuple[int, int | Size, int, int | Size]
#: The name of a convolution's input ("" for the block's), and its shape.
Layer = tuple[str, int, int | Size, int, int | Size]
FLAT, TALL, BESIDE, ABOVE = (1, 7), (7, 1), (0, 3), (3, 0)  # two kernels, and their paddings


class Convolution(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int | Size, stride: int = 1, padding: int | Size = 0
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, inputs, H, W)` to `(B, outputs, H', W')`."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """A block: branches of convolutions, and one that pools; their ends are concatenated.

    Arguments:
        inputs: channels.
        layers: the convolutions by name, each after the one it reads.
        pooled: channels of the convolution after average pooling; with 0, maxima with stride 2 instead.
    """

    def __init__(self, inputs: int, layers: dict[str, Layer], pooled: int = 0) -> None:
        super().__init__()
        self.layers, width = layers, {"": inputs}
        for name, (source, outputs, kernel, stride, padding) in layers.items():
            self.add_module(name, Convolution(width[source], outputs, kernel, stride, padding))
            width[name] = outputs
        sources = {layer[0] for layer in layers.values()}
        self.ends = [name for name in layers if name not in sources]
        self.outputs = sum(width[name] for name in self.ends) + (pooled or inputs)
        self.branch_pool = Convolution(inputs, pooled, 1) if pooled else None

    def forward(self, x: Tensor) -> Tensor:
        """From `(B, inputs, H, W)` to `(B, outputs, H', W')`."""
        outputs = {"": x}
        for name, (source, *_) in self.layers.items():
            outputs[name] = self.get_submodule(name)(outputs[source])
        if self.branch_pool is None:
            pooled = F.max_pool2d(x, 3, 2)
        else:
            pooled = self.branch_pool(F.avg_pool2d(x, 3, 1, 1))
        return torch.cat([*(outputs[name] for name in self.ends), pooled], 1)


def _chain(name: str, *shapes: Shape) -> dict[str, Layer]:
    """Convolutions one after the other: `name`_1, `name`_2 …"""
    names = [f"{name}_{number}" for number in range(1, len(shapes) + 1)]
    return {
        layer: (source, *shape) for layer, source, shape in zip(names, ["", *names], shapes, strict=False)
    }


def _fine(pooled: int) -> tuple[dict[str, Layer], int]:
    """A block at 35×35 pixels."""
    return {
        "branch1x1": ("", 64, 1, 1, 0),
        **_chain("branch5x5", (48, 1, 1, 0), (64, 5, 1, 2)),
        **_chain("branch3x3dbl", (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 1, 1)),
    }, pooled


def _middle(c: int) -> tuple[dict[str, Layer], int]:
    """A block at 17×17 pixels with `c` inner channels."""
    double = ((c, 1, 1, 0), (c, TALL, 1, ABOVE), (c, FLAT, 1, BESIDE), (c, TALL, 1, ABOVE))
    return {
        "branch1x1": ("", 192, 1, 1, 0),
        **_chain("branch7x7", (c, 1, 1, 0), (c, FLAT, 1, BESIDE), (192, TALL, 1, ABOVE)),
        **_chain("branch7x7dbl", *double, (192, FLAT, 1, BESIDE)),
    }, 192


#: A block at 8×8 pixels.
_COARSE: tuple[dict[str, Layer], int] = (
    {
        "branch1x1": ("", 320, 1, 1, 0),
        "branch3x3_1": ("", 384, 1, 1, 0),
        "branch3x3_2a": ("branch3x3_1", 384, (1, 3), 1, (0, 1)),
        "branch3x3_2b": ("branch3x3_1", 384, (3, 1), 1, (1, 0)),
        **_chain("branch3x3dbl", (448, 1, 1, 0), (384, 3, 1, 1)),
        "branch3x3dbl_3a": ("branch3x3dbl_2", 384, (1, 3), 1, (0, 1)),
        "branch3x3dbl_3b": ("branch3x3dbl_2", 384, (3, 1), 1, (1, 0)),
    },
    192,
)
#: The arguments `layers` and `pooled` of each `Mixed`, in order.
_BLOCKS: dict[str, tuple[dict[str, Layer], int]] = {
    "Mixed_5b": _fine(32),
    "Mixed_5c": _fine(64),
    "Mixed_5d": _fine(64),
    "Mixed_6a": (
        {"branch3x3": ("", 384, 3, 2, 0)}
        | _chain("branch3x3dbl", (64, 1, 1, 0), (96, 3, 1, 1), (96, 3, 2, 0)),
        0,
    ),
    "Mixed_6b": _middle(128),
    "Mixed_6c": _middle(160),
    "Mixed_6d": _middle(160),
    "Mixed_6e": _middle(192),
    "Mixed_7a": (
        _chain("branch3x3", (192, 1, 1, 0), (320, 3, 2, 0))
        | _chain(
            "branch7x7x3", (192, 1, 1, 0), (192, FLAT, 1, BESIDE), (192, TALL, 1, ABOVE), (192, 3, 2, 0)
        ),
        0,
    ),
    "Mixed_7b": _COARSE,
    "Mixed_7c": _COARSE,
}


class InceptionV3(nn.Module):
    """From pictures `(B, 3, H, W)` in [0, 1] to logits `(B, classes)`; weights are named as in timm."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        width = 192
        for name, (layers, pooled) in _BLOCKS.items():
            block = Mixed(width, layers, pooled)
            self.add_module(name, block)
            width = block.outputs
        self.fc = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `(B, classes)`; pictures are resized bilinearly to 299×299."""
        size = (SIDE, SIDE)
        x = 2 * F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False) - 1
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in _BLOCKS:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def load_inception(
    checkpoint: str | Path = PUBLISHED, device: str | torch.device | None = None
) -> InceptionV3:
    """The classifier with the weights of a folder, or of a repository of the hub.

    Arguments:
        device: the accelerator, if there is one, by default.

    Raises:
        RewardError: if the weights are missing, or are another network's.
    """
    source, device = str(checkpoint), device or torch.accelerator.current_accelerator() or "cpu"
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
