"""HPSv2: a CLIP ViT-H/14 tuned on people's preferences; the cosine of picture and prompt.

Checkpoint: xswu/HPSv2, HPS_v2.1_compressed.pt (Apache-2.0), in open_clip's layout, or from a folder also
HPS_v2_compressed.pt; the tokenizer is that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K (MIT).
References: Wu et al. (2023), https://arxiv.org/abs/2306.09341
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from diffalign.rewards.checkpoints import renamed, weights_of
from diffalign.rewards.clip import TOKENIZER, ClipScore

FILES = ("HPS_v2.1_compressed.safetensors", "HPS_v2.1_compressed.pt")
OLDER = ("HPS_v2_compressed.safetensors", "HPS_v2_compressed.pt")  # of version 2.0, from a folder alone
HEADS = 16  # of both towers of a ViT-H/14; weights do not tell
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
#: Parts of names, open_clip's → transformers'.
_NAMES = {
    "visual.proj": "visual_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1": "vision_model.embeddings.patch_embedding",
    "visual.ln_pre": "vision_model.pre_layrnorm",  # the misspelling is transformers'
    "visual.ln_post": "vision_model.post_layernorm",
    "visual.transformer.resblocks": "vision_model.encoder.layers",
    "text_projection": "text_projection.weight",
    "token_embedding": "text_model.embeddings.token_embedding",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "transformer.resblocks": "text_model.encoder.layers",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


class HpsScore(ClipScore):
    """Which picture of a prompt people prefer; about 0.2 to 0.35."""

    published = "xswu/HPSv2"
    processors = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    others = (processors,)

    def load(self) -> CLIPModel:
        """A CLIP with the published weights."""
        folder = Path(self.checkpoint)
        weights = weights_of(self.checkpoint, FILES + OLDER if folder.is_dir() else FILES, self.local)
        source = folder if (folder / TOKENIZER).exists() else self.processors
        self.tokenizer = self.read(CLIPTokenizer, source)
        return clip_of(weights.get("state_dict", weights), self.tokenizer.eos_token_id)

    def prepare_images(self, images: list[Image.Image]) -> Tensor:
        """The network's input `(B, 3, side, side)`: whole pictures on black, normalised."""
        side = self.network.config.vision_config.image_size
        return torch.stack([fitted(image, side) for image in images])

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`."""
        return super().score(images, prompts) / 100


def fitted(image: Image.Image, side: int) -> Tensor:
    """The whole picture, scaled to a square on black and normalised, with shape `(3, side, side)`."""
    square = ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, color=0)
    pixels = torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(side, side, 3)
    return ((pixels.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)).permute(2, 0, 1)


def clip_of(
    weights: Mapping[str, Tensor], end: int, heads: tuple[int, int] = (HEADS, HEADS), act: str = "gelu"
) -> CLIPModel:
    """The `CLIPModel` with the weights of a ViT CLIP in open_clip's layout.

    Arguments:
        weights: by their names.
        end: the token that ends a text.
        heads: attention heads of the image tower and of the text tower.
        act: the activation, "quick_gelu" in OpenAI's networks.

    Raises:
        KeyError: if the weights are another network's.
    """
    width = weights["visual.proj"].shape[1]

    def tower(prefix: str, heads: int) -> dict[str, Any]:
        """The settings that the towers share by name."""
        inner, hidden = weights[f"{prefix}.resblocks.0.mlp.c_fc.weight"].shape
        return {
            "hidden_size": hidden,
            "intermediate_size": inner,
            "num_hidden_layers": sum(n.startswith(prefix) and n.endswith(".ln_1.bias") for n in weights),
            "num_attention_heads": heads,
            "hidden_act": act,
            "projection_dim": width,
        }

    patch, patches = weights["visual.conv1.weight"].shape[-1], len(weights["visual.positional_embedding"]) - 1
    config = CLIPConfig(
        vision_config={
            **tower("visual.transformer", heads[0]),
            "patch_size": patch,
            "image_size": patch * round(patches**0.5),
        },
        text_config={
            **tower("transformer", heads[1]),
            "vocab_size": len(weights["token_embedding.weight"]),
            "max_position_embeddings": len(weights["positional_embedding"]),
            "eos_token_id": end,
            "bos_token_id": None,
        },
        projection_dim=width,
    )
    mapped: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer, joint, kind = renamed(name, _NAMES).partition("attn.in_proj_")
        if joint:
            for letter, projection in zip("qkv", value.chunk(3), strict=True):
                mapped[f"{layer}self_attn.{letter}_proj.{kind}"] = projection
        else:
            mapped[layer] = value.T if name in ("visual.proj", "text_projection") else value
    model = CLIPModel(config)
    model.load_state_dict({name: mapped[name].float().contiguous() for name in model.state_dict()})
    return model
