"""Stage `clip`: a CLIP of the world's pictures and captions, whose text tower conditions the denoiser."""

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPModel, CLIPTextModel

from diffalign.world.scenes import EVEN, IMAGE_SIZE
from recipes.world import models
from recipes.world.data import contrast_batch
from recipes.world.stages.stage import SEED, Stage


class ClipStage(Stage):
    """Contrastive training; half of each batch are near misses of the other half."""

    name = "clip"
    steps = 1800
    batch = 128
    learning_rate = 1e-3
    weight_decay = 0.05

    def __init__(self) -> None:
        torch.manual_seed(SEED)
        self.tokenizer = models.build_tokenizer()
        self.model = models.build_clip(self.tokenizer)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The contrastive loss of batch `step`; the share of pictures that fit their best caption to log."""
        rng = self.batch_generator(step)
        pictures, captions, _ = contrast_batch(rng, self.batch, EVEN)
        pictures = self.augment(pictures, rng)
        tokens = self.tokenizer(captions, padding="max_length", return_tensors="pt")
        output = self.model(input_ids=tokens.input_ids, pixel_values=pictures * 2 - 1)
        same = torch.tensor([[a == b for b in captions] for a in captions]).float()
        target = same / same.sum(1, keepdim=True)
        loss = F.cross_entropy(output.logits_per_image, target) + F.cross_entropy(
            output.logits_per_text, target
        )
        hit = same.gather(1, output.logits_per_image.argmax(1, keepdim=True)).mean()
        return loss / 2, {"accuracy": float(hit)}

    @staticmethod
    def augment(pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Blurs half of the pictures and makes a quarter noisy, as decoded pictures are."""
        scale = float(rng.uniform(0.4, 0.9))
        # at random: a scene and its near miss must not differ in sharpness
        order = torch.from_numpy(rng.permutation(len(pictures)))
        half, quarter = order[: len(order) // 2], order[: len(order) // 4]
        small = F.interpolate(pictures[half], scale_factor=scale, mode="bilinear", antialias=True)
        pictures = pictures.clone()
        pictures[half] = F.interpolate(small, (IMAGE_SIZE, IMAGE_SIZE), mode="bilinear")
        pictures[quarter] += 0.04 * torch.randn_like(pictures[quarter])
        return pictures.clamp(0, 1)

    def picture(self) -> None:
        """No grid: CLIP draws nothing."""
        return None


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """CLIP's text model as the class that Stable Diffusion pipelines hold."""
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    return text_encoder.eval().requires_grad_(False)
