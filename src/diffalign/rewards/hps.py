"""HPSv2: a CLIP ViT-H/14 tuned on people's preferences; the cosine of picture and prompt.

Checkpoint: xswu/HPSv2, HPS_v2.1_compressed.pt (Apache-2.0), in open_clip's layout, or from a folder also
HPS_v2_compressed.pt; the tokenizer is that of laion/CLIP-ViT-H-14-laion2B-s32B-b79K (MIT).
References: Wu et al. (2023), https://arxiv.org/abs/2306.09341
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from diffalign.rewards.checkpoints import weights_of
from diffalign.rewards.clip import TOKENIZER, ClipScore

FILES = ("HPS_v2.1_compressed.safetensors", "HPS_v2.1_compressed.pt")
OLDER = ("HPS_v2_compressed.safetensors", "HPS_v2_compressed.pt")  # of version 2.0, from a folder alone
HEADS = 16  # of both towers of a ViT-H/14; weights do not tell
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's CLIP
#: Names in a layer, open_clip's → transformers'.
_LAYER = {
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
    mapped = {
        "logit_scale": weights["logit_scale"],
        "visual_projection.weight": weights["visual.proj"].T,
        "text_projection.weight": weights["text_projection"].T,
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
    }
    # the misspelling is transformers'
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    for old, new in norms.items():
        for kind in ("weight", "bias"):
            mapped[f"{new}.{kind}"] = weights[f"{old}.{kind}"]
    layers = {}
    for tower, prefix in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
        blocks = (name for name in weights if name.startswith(f"{prefix}.resblocks."))
        numbers = {int(name.removeprefix(f"{prefix}.resblocks.").split(".")[0]) for name in blocks}
        layers[tower] = len(numbers)
        for number in numbers:
            old, new = f"{prefix}.resblocks.{number}", f"{tower}.encoder.layers.{number}"
            for kind in ("weight", "bias"):
                for old_name, new_name in _LAYER.items():
                    mapped[f"{new}.{new_name}.{kind}"] = weights[f"{old}.{old_name}.{kind}"]
                projections = weights[f"{old}.attn.in_proj_{kind}"].chunk(3)
                for letter, projection in zip("qkv", projections, strict=True):
                    mapped[f"{new}.self_attn.{letter}_proj.{kind}"] = projection
    vision, text = weights["visual.conv1.weight"], weights["token_embedding.weight"]
    patch, patches = vision.shape[-1], len(weights["visual.positional_embedding"]) - 1
    width = weights["visual.proj"].shape[1]
    shared = {"hidden_act": act, "projection_dim": width}
    config = CLIPConfig(
        vision_config={
            "hidden_size": vision.shape[0],
            "intermediate_size": len(weights["visual.transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": layers["vision_model"],
            "num_attention_heads": heads[0],
            "patch_size": patch,
            "image_size": patch * round(patches**0.5),
            **shared,
        },
        text_config={
            "vocab_size": text.shape[0],
            "hidden_size": text.shape[1],
            "intermediate_size": len(weights["transformer.resblocks.0.mlp.c_fc.weight"]),
            "num_hidden_layers": layers["text_model"],
            "num_attention_heads": heads[1],
            "max_position_embeddings": len(weights["positional_embedding"]),
            "eos_token_id": end,
            "bos_token_id": None,
            **shared,
        },
        projection_dim=width,
    )
    model = CLIPModel(config)
    model.load_state_dict({name: value.float().contiguous() for name, value in mapped.items()})
    return model
