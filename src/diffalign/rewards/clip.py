"""CLIPScore of any CLIP checkpoint: 100 · cos(image, text).

Checkpoints: openai/clip-vit-large-patch14 (MIT), or, as in B²-DiffuRL,
laion/CLIP-ViT-H-14-laion2B-s32B-b79K (MIT).
References: Hessel et al. (EMNLP 2021), https://arxiv.org/abs/2104.08718
"""

from pathlib import Path

import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from diffalign.rewards.scorer import Scorer

TOKENIZER = "tokenizer_config.json"


class ClipScore(Scorer):
    """How well picture and prompt agree, from −100 to 100; about 15 to 35 for CLIPs of the real world."""

    published = "openai/clip-vit-large-patch14"
    #: the repository of tokenizer and image processor where the checkpoint has none
    processors = published
    network: CLIPModel

    def load(self) -> CLIPModel:
        """A CLIP; its processors are loaded beside it."""
        return self.load_clip(self.checkpoint)

    def load_clip(self, source: str) -> CLIPModel:
        """The CLIP of a folder or repository, with its processors or else the published ones."""
        network: CLIPModel = self.read(CLIPModel, source)
        if source == self.published or (Path(source).is_dir() and not (Path(source) / TOKENIZER).exists()):
            source = self.processors
        self.tokenizer = self.read(CLIPTokenizer, source)
        self.processor = self.read(CLIPImageProcessorPil, source)
        return network

    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """Unit embeddings `(B, D)`."""
        return F.normalize(self.image_features(images), dim=-1)

    def image_features(self, images: list[Image.Image]) -> Tensor:
        """Features `(B, D)` as they leave the projection, not normalised."""
        pixels = self.to_device(pixel_values=self.prepare_images(images))
        features: Tensor = self.network.get_image_features(**pixels).pooler_output.float()
        return features

    def prepare_images(self, images: list[Image.Image]) -> Tensor:
        """The network's input `(B, 3, side, side)`, resized and normalised."""
        pixels: Tensor = self.processor(images, return_tensors="pt")["pixel_values"]
        return pixels

    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Unit embeddings `(B, D)`."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        features = self.network.get_text_features(**self.to_device(**tokens))
        return F.normalize(features.pooler_output.float(), dim=-1)

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`."""
        return 100 * (self.embed_images(images) * self.embed_prompts(prompts)).sum(-1)
