"""PickScore: a CLIP tuned on people's choices, times its learned scale.

Checkpoint: yuvalkirstain/PickScore_v1 (MIT).
References: Kirstain et al. (NeurIPS 2023), https://arxiv.org/abs/2305.01569
"""

from PIL import Image
from torch import Tensor

from diffalign.rewards.clip import ClipScore


class PickScore(ClipScore):
    """Which of two pictures of a prompt people would pick; about 18 to 24."""

    published = "yuvalkirstain/PickScore_v1"
    processors = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
    others = (processors,)

    def score(self, images: list[Image.Image], prompts: list[str]) -> Tensor:
        """See `Scorer.score`."""
        scores: Tensor = self.network.logit_scale.exp() * super().score(images, prompts) / 100
        return scores
