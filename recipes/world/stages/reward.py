"""Stage `reward`: the CLIP that scores pictures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from diffalign.world.render import render, to_tensor
from diffalign.world.scenes import EVEN
from recipes.world.data import contrast_batch, spoil, truth
from recipes.world.stages.autoencoder import DecoderStage
from recipes.world.stages.clip import ClipStage
from recipes.world.stages.stage import load_stage


class RewardStage(ClipStage):
    """CLIP again, on harder pictures: three near misses of each scene, a spoilt picture of it that its
    caption does not describe, as generated ones often are, and half of all pictures as the decoder makes
    them out of inexact latents.

    Both towers learn. The denoiser keeps the text tower of `clip`, on whose states it is conditioned, as
    Stable Diffusion is scored with other CLIPs than its own.
    """

    name = "reward"
    steps = 3000
    groups = 24
    misses = 3
    learning_rate = 5e-4
    latent_noise = 0.6  # at most; the latents' standard deviation is about 1.4
    frequencies = replace(EVEN, named_colour=0.3)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.vae = load_stage(DecoderStage(folder), folder)
        trained = (folder / self.name / "ema.safetensors").exists()
        load_stage(self, folder, self.name if trained else "clip").train().requires_grad_(True)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The contrastive loss of batch `step`; the share of captions that fit their best picture to log."""
        rng = self.batch_generator(step)
        group = self.misses + 1
        pictures, captions, scenes = contrast_batch(rng, self.groups * group, self.frequencies, self.misses)
        spoilt = [spoil(scene, rng) for scene in scenes[:: 2 * group]]
        # a picture between a scene and its near miss shows neither
        share = torch.from_numpy(rng.uniform(0.3, 0.7, (len(spoilt), 1, 1, 1))).float()
        between = torch.lerp(pictures[group :: 2 * group], pictures[group + 1 :: 2 * group], share)
        pictures = torch.cat([pictures, to_tensor([render(scene) for scene in spoilt]), between])
        pictures = self.decoded(self.augment(pictures, rng), rng)
        tokens = self.tokenizer(captions, padding="max_length", return_tensors="pt")
        logits = self.model(input_ids=tokens.input_ids, pixel_values=pictures * 2 - 1).logits_per_text
        true = truth([*scenes, *spoilt], captions).t().float()
        true = torch.cat([true, torch.zeros(len(captions), len(between))], 1)
        loss = self.cross_entropy(logits, true) + self.cross_entropy(logits.t(), true.t())
        hit = true.gather(1, logits.argmax(1, keepdim=True)).mean()
        return loss / 2, {"accuracy": float(hit)}

    @staticmethod
    def cross_entropy(logits: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
        """Against an equal share for all that is true in a row; over the rows in which something is."""
        rows = true.sum(1) > 0
        return F.cross_entropy(logits[rows], true[rows] / true[rows].sum(1, keepdim=True))

    @torch.no_grad()
    def decoded(self, pictures: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Half of the pictures, at random, after a round trip through inexact latents."""
        half = torch.from_numpy(rng.permutation(len(pictures))[: len(pictures) // 2])
        latents = self.vae.encode(pictures[half] * 2 - 1).latent_dist.mean
        amount = self.latent_noise * torch.rand(len(latents), 1, 1, 1)
        pictures = pictures.clone()
        pictures[half] = self.vae.decode(latents + amount * torch.randn_like(latents)).sample / 2 + 0.5
        return pictures.clamp(0, 1)
