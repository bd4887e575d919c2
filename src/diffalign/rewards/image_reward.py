"""ImageReward: a BLIP that reads prompt and picture together, and a head trained on people's rankings.

Checkpoint: zai-org/ImageReward, ImageReward.pt and med_config.json (Apache-2.0); the tokenizer is that of
google-bert/bert-base-uncased (Apache-2.0).
References: Xu et al. (NeurIPS 2023), https://arxiv.org/abs/2304.05977
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (
    BertTokenizer,
    BlipTextConfig,
    BlipTextModel,
    BlipVisionConfig,
    BlipVisionModel,
    CLIPImageProcessorPil,
)

from diffalign.rewards.checkpoints import file_of, linear_layers, renamed, weights_of
from diffalign.rewards.scorer import Scorer

FILES = ("ImageReward.safetensors", "ImageReward.pt")
TOKENS = 35  # of a prompt, as in training
HEAD_WIDTH = 64  # of the vision tower's attention heads, as in every ViT
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of scores on the published training set
#: Settings of the text tower that are read from med_config.json.
_TEXT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("max_position_embeddings", "layer_norm_eps", "hidden_act", "pad_token_id"),
)
#: Names of weights of the vision tower, timm's → transformers'; the text tower's are transformers'.
_NAMES = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "blocks": "encoder.layers",
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "norm": "post_layernorm",
}


class Blip(nn.Module):
    """Vision tower, text tower that attends to it, and the head."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig, head: nn.Module) -> None:
        super().__init__()
        self.vision, self.text = BlipVisionModel(vision), BlipTextModel(text, add_pooling_layer=False)
        self.head = head

    def forward(self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores `(B,)`, not standardised, of pictures `(B, 3, H, W)` and of B tokenised prompts `(B, L)`."""
        patches = self.vision(pixel_values).last_hidden_state
        tokens = self.text(
            input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device),
        )
        scores: Tensor = self.head(tokens.last_hidden_state[:, 0].float())
        return scores[:, 0]


class ImageReward(Scorer):
    """How well people would rank the picture for the prompt; mean 0 and standard deviation 1 on its data."""

    published = "zai-org/ImageReward"
    others = ("google-bert/bert-base-uncased",)
    precise = ("head",)
    network: Blip

    def load(self) -> Blip:
        """The network; its tokenizer and image processor are made beside it."""
        text_config = json.loads(file_of(self.checkpoint, ["med_config.json"], self.local).read_text())
        network = blip_of(weights_of(self.checkpoint, FILES, self.local), text_config)
        folder = Path(self.checkpoint)
        has_tokenizer = (folder / "vocab.txt").exists() or (folder / "tokenizer.json").exists()
        self.tokenizer = self.read(BertTokenizer, folder if has_tokenizer else self.others[0])
        side = network.vision.config.image_size
        self.processor = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )
        return network

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`."""
        options = {"padding": "max_length", "truncation": True, "max_length": TOKENS, "return_tensors": "pt"}
        tokens = self.tokenizer(prompts, return_token_type_ids=False, **options)
        pixels = self.processor(images, return_tensors="pt")
        scores: Tensor = self.network(**self.to_device(**pixels, **tokens))
        return (scores - MEAN) / STD


def blip_of(weights: Mapping[str, Tensor], text_config: Mapping[str, Any], heads: int | None = None) -> Blip:
    """The network of the published weights.

    Arguments:
        weights: by their names.
        text_config: settings of the text tower, as med_config.json holds them.
        heads: attention heads of the vision tower; as many as are `HEAD_WIDTH` wide by default.

    Raises:
        KeyError: if the weights are another network's.
    """
    patch = weights["blip.visual_encoder.patch_embed.proj.weight"]
    width, patches = patch.shape[0], weights["blip.visual_encoder.pos_embed"].shape[1] - 1
    blocks = [n for n in weights if n.startswith("blip.visual_encoder.") and n.endswith(".norm1.bias")]
    vision = BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(weights["blip.visual_encoder.blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=len(blocks),
        num_attention_heads=heads or max(1, width // HEAD_WIDTH),
        patch_size=patch.shape[-1],
        image_size=patch.shape[-1] * round(patches**0.5),
        layer_norm_eps=1e-6,
    )
    text = BlipTextConfig(
        encoder_hidden_size=width, **{name: text_config[name] for name in _TEXT if name in text_config}
    )
    text.vocab_size = len(weights["blip.text_encoder.embeddings.word_embeddings.weight"])
    network = Blip(vision, text, linear_layers(weights, "mlp.layers."))
    for tower, prefix in ((network.vision, "blip.visual_encoder."), (network.text, "blip.text_encoder.")):
        names = [n for n in weights if n.startswith(prefix) and not n.endswith("position_ids")]
        tower.load_state_dict({renamed(n.removeprefix(prefix), _NAMES): weights[n] for n in names})
    return network
