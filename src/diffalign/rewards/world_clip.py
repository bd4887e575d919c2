"""CLIPScore of the embedded world's CLIP: 100 · cos(image, text).

References: Hessel et al. (EMNLP 2021), https://arxiv.org/abs/2104.08718
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from diffalign.diffusion.quiet import quietly
from diffalign.rewards import RewardError
from diffalign.world import WORLD_FOLDER
from diffalign.world.scenes import IMAGE_SIZE


class WorldClip:
    """A learned reward of pictures `(B, 3, 64, 64)` in [0, 1]: scores `(B,)`, which are sometimes wrong."""

    @quietly()
    def __init__(self) -> None:
        self.model = CLIPModel.from_pretrained(WORLD_FOLDER / "clip", dtype=torch.float32).eval()
        self.tokenizer = CLIPTokenizer.from_pretrained(WORLD_FOLDER / "tokenizer")

    @torch.inference_mode()
    def image_features(self, images: Tensor) -> Tensor:
        """Features with shape `(B, 128)`, not normalised.

        Raises:
            RewardError: if the pictures are not of the world's size.
        """
        if images.ndim != 4 or images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise RewardError(
                f"world-clip reads the embedded world's pictures (B, 3, {IMAGE_SIZE}, {IMAGE_SIZE}), not "
                f"{tuple(images.shape)}; take clip, or clip@FOLDER"
            )
        pixels = images.to(self.model.device) * 2 - 1
        features: Tensor = self.model.get_image_features(pixel_values=pixels).pooler_output
        return features

    def embed_images(self, images: Tensor) -> Tensor:
        """Unit embeddings with shape `(B, 128)`."""
        return F.normalize(self.image_features(images), dim=-1)

    @torch.inference_mode()
    def embed_prompts(self, prompts: list[str]) -> Tensor:
        """Unit embeddings with shape `(B, 128)`."""
        tokens = self.tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt")
        features = self.model.get_text_features(input_ids=tokens.input_ids.to(self.model.device))
        return F.normalize(features.pooler_output, dim=-1)

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        return 100 * (self.embed_images(images) * self.embed_prompts(prompts)).sum(-1)
