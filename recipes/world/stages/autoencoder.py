"""Stages `vae` and `decoder`: the autoencoder between pictures and latents."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffalign.world.scenes import EVEN, IMAGE_SIZE
from recipes.world import models
from recipes.world.data import LONG_TAIL, scene_batch
from recipes.world.stages.stage import SEED, Stage, grid, load_stage


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + 2 L2 + half the error of the edges, of pictures `(B, 3, H, W)` in [−1, 1]."""
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [−1, 1]."""
    return float(-10 * ((output - target).detach().square().mean() / 4).log10())


class VaeStage(Stage):
    """Reconstruction of 32×32 crops (the model is convolutional): L1 + 2 L2 + edges + a little KL."""

    name = "vae"
    steps = 6500
    batch = 32
    learning_rate = 2e-3
    weight_decay = 1e-4
    crop = 32

    def __init__(self) -> None:
        torch.manual_seed(SEED + 1)
        self.model = models.build_vae().to(memory_format=torch.channels_last)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of the crops of batch `step`; signal-to-noise ratio and KL to log."""
        rng = self.batch_generator(step)
        _, pictures, _ = scene_batch(rng, self.batch, EVEN)
        corners = rng.integers(0, (IMAGE_SIZE - self.crop) // 8 + 1, (self.batch, 2)) * 8
        crops = [
            p[:, y : y + self.crop, x : x + self.crop] for p, (y, x) in zip(pictures, corners, strict=True)
        ]
        target = torch.stack(crops)[self.part].contiguous(memory_format=torch.channels_last) * 2 - 1
        posterior = self.model.encode(target).latent_dist
        output = self.model.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        loss = reconstruction_loss(output, target) + 1e-4 * kl
        return loss, {"psnr": psnr(output, target), "kl": float(kl.detach())}

    @torch.no_grad()
    def picture(self) -> torch.Tensor:
        """Sixteen scenes and below each row the same, encoded and decoded."""
        _, pictures, _ = scene_batch(np.random.default_rng(7), 16, EVEN)
        decoded = self.model(pictures * 2 - 1).sample / 2 + 0.5
        return grid(torch.cat([pictures[:8], decoded[:8], pictures[8:], decoded[8:]]), 8)


class DecoderStage(VaeStage):
    """The decoder alone, on whole pictures and noisy latents.

    Group normalisation sees other statistics in crops; and a denoiser's latents are never exact.
    """

    name = "decoder"
    steps = 2000
    batch = 16
    learning_rate = 1e-3
    latent_noise = 0.35  # at most; the latents' standard deviation is about 1.4

    def __init__(self, folder: Path) -> None:
        super().__init__()
        load_stage(self, folder, "vae")
        for part in (self.model.decoder, self.model.post_quant_conv):
            part.requires_grad_(True)

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of the decoded pictures of batch `step`; their signal-to-noise ratio to log."""
        _, pictures, _ = scene_batch(self.batch_generator(step), self.batch, EVEN)
        target = pictures[self.part].contiguous(memory_format=torch.channels_last) * 2 - 1
        with torch.no_grad():
            latents = self.model.encode(target).latent_dist.sample()
            amount = self.latent_noise * torch.rand(len(latents), 1, 1, 1)
            latents = latents + amount * torch.randn_like(latents)
        output = self.model.decode(latents).sample
        return reconstruction_loss(output, target), {"psnr": psnr(output, target)}


@torch.no_grad()
def latent_scale(vae: Any) -> float:
    """The factor that gives latents of `LONG_TAIL` scenes unit standard deviation."""
    _, pictures, _ = scene_batch(np.random.default_rng([SEED, 98]), 1024, LONG_TAIL)
    latents = [vae.encode(part * 2 - 1).latent_dist.mean for part in pictures.split(64)]
    return 1 / torch.cat(latents).std().item()
