"""Stable Diffusion's weights in one file, as they are shared: the layout of its first release."""

import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

_TOP = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}


def save_single_file(pipeline: Any, path: Path) -> Path:
    """Writes the denoiser, VAE and text encoder of a `StableDiffusionPipeline`."""
    layers = pipeline.unet.config.layers_per_block
    blocks = len(pipeline.vae.config.block_out_channels)
    tensors: dict[str, Tensor] = {}
    for name, tensor in pipeline.unet.state_dict().items():
        tensors["model.diffusion_model." + unet_name(name, layers)] = tensor
    for name, tensor in pipeline.vae.state_dict().items():
        tensors["first_stage_model." + vae_name(name, blocks)] = tensor
    for name, tensor in pipeline.text_encoder.state_dict().items():
        tensors["cond_stage_model.transformer.text_model." + name.removeprefix("text_model.")] = tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def unet_name(name: str, layers: int) -> str:
    """Of a tensor of a `UNet2DConditionModel` with so many layers a block."""
    every = layers + 1  # beside the layers of a block, going down or up
    for ours, theirs in _TOP.items():
        if name.startswith(ours + "."):
            return theirs + name.removeprefix(ours)
    if found := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        kind, number, rest = found.groups()
        where = f"middle_block.{2 * int(number) if kind == 'resnets' else 1}"
        return f"{where}.{resnet_name(rest) if kind == 'resnets' else rest}"
    way, block, kind, number, rest = re.fullmatch(  # type: ignore[union-attr]
        r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name
    ).groups()
    first = every * int(block) + int(number)
    where = f"input_blocks.{first + 1}" if way == "down" else f"output_blocks.{first}"
    if kind == "downsamplers":
        return f"input_blocks.{every * (int(block) + 1)}.0.{rest.replace('conv.', 'op.')}"
    if kind == "upsamplers":
        return f"output_blocks.{every * int(block) + layers}.2.{rest}"  # after a resnet and attention
    return f"{where}.0.{resnet_name(rest)}" if kind == "resnets" else f"{where}.1.{rest}"


def resnet_name(name: str) -> str:
    layer, _, rest = name.partition(".")
    return f"{_RESNET[layer]}.{rest}"


def vae_name(name: str, blocks: int) -> str:
    """Of a tensor of an `AutoencoderKL` with so many blocks, without attention."""
    name = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    return re.sub(
        r"up_blocks\.(\d)\.(resnets|upsamplers\.0)",
        lambda found: f"up.{blocks - 1 - int(found[1])}.{'block' if found[2] == 'resnets' else 'upsample'}",
        name,
    )
