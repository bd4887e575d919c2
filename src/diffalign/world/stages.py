"""The stages of the recipe: what each trains, on what, with which loss."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextModel

from diffalign.world import models
from diffalign.world.data import contrast_batch, scene_batch, spoil, to_tensor, truth
from diffalign.world.grammar import caption
from diffalign.world.render import render
from diffalign.world.scenes import COMPOSED, EVEN, IMAGE_SIZE, LONG_TAIL, sample_scene

SEED = 2026


class Stage(ABC):
    """What one training stage adds to the training loop."""

    name: str
    steps: int
    learning_rate: float
    weight_decay: float = 0.01
    ema_decay: float = 0.998
    model: Any
    part: slice = slice(None)  # of each batch, for this process of a data-parallel run

    def batch_generator(self, step: int) -> np.random.Generator:
        return np.random.default_rng([SEED, sum(self.name.encode()), step])

    @abstractmethod
    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The loss of batch `step` and figures to log."""

    @abstractmethod
    def picture(self) -> torch.Tensor | None:
        """A grid `(3, H, W)` in [0, 1] that shows how far training is."""


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
        return None


def reconstruction_loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """L1 + 2 L2 + half the error of the edges, of pictures `(B, 3, H, W)` in [−1, 1]."""
    error = output - target
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def psnr(output: torch.Tensor, target: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [−1, 1]."""
    return float(-10 * ((output - target).detach().square().mean() / 4).log10())


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
        _, pictures, _ = scene_batch(self.batch_generator(step), self.batch, EVEN)
        target = pictures[self.part].contiguous(memory_format=torch.channels_last) * 2 - 1
        with torch.no_grad():
            latents = self.model.encode(target).latent_dist.sample()
            amount = self.latent_noise * torch.rand(len(latents), 1, 1, 1)
            latents = latents + amount * torch.randn_like(latents)
        output = self.model.decode(latents).sample
        return reconstruction_loss(output, target), {"psnr": psnr(output, target)}


class UnetStage(Stage):
    """v-prediction on the latents of long-tailed scenes, conditioned on CLIP's text states."""

    name = "unet"
    steps = 9000
    batch = 64
    learning_rate = 1e-3
    ema_decay = 0.9995
    scenes = 49_152
    dropped_captions = 0.1  # for classifier-free guidance
    frequencies = LONG_TAIL

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(SEED + 2)
        self.folder = folder
        self.vae = load_stage(VaeStage(), folder)
        clip = ClipStage()
        self.tokenizer, self.text_encoder = clip.tokenizer, text_tower(load_stage(clip, folder))
        self.scheduler = models.build_scheduler()
        self.model = models.build_unet().to(memory_format=torch.channels_last)
        self.scale = latent_scale(self.vae)
        self.dataset()

    @torch.no_grad()
    def dataset(self) -> None:
        """Sets the latents `(N, 8, 8, 8)` of the scenes, and for each two captions' rows of `conditions`."""
        rng = np.random.default_rng([SEED, 99])
        scenes = [sample_scene(rng, self.frequencies) for _ in range(self.scenes)]
        file = self.folder / self.name / "latents.safetensors"
        if not file.exists():
            parts = []
            for i in range(0, self.scenes, 64):
                pictures = to_tensor([render(scene) for scene in scenes[i : i + 64]])
                parts.append(self.vae.encode(pictures * 2 - 1).latent_dist.mean)
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.partial")  # processes may come here together
            save_file({"latents": torch.cat(parts).contiguous()}, partial)
            os.replace(partial, file)
        self.latents = load_file(file)["latents"] * self.scale
        texts = [[caption(scene, rng, self.frequencies) for _ in range(2)] for scene in scenes]
        unique = ["", *sorted({text for pair in texts for text in pair})]  # row 0: no caption
        row = {text: i for i, text in enumerate(unique)}
        self.rows = torch.tensor([[row[text] for text in pair] for pair in texts])
        self.conditions = torch.cat([self.embed(unique[i : i + 256]) for i in range(0, len(unique), 256)])

    def embed(self, captions: list[str]) -> torch.Tensor:
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        return self.text_encoder(tokens.input_ids).last_hidden_state

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        rng = self.batch_generator(step)
        chosen = rng.integers(0, self.scenes, self.batch)
        rows = self.rows[chosen, rng.integers(0, 2, self.batch)]
        rows[rng.random(self.batch) < self.dropped_captions] = 0
        condition = self.conditions[rows]
        x_0 = self.latents[torch.from_numpy(chosen)].contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(x_0)
        # one timestep in each of B equal strata: less variance than independent draws
        strata = (torch.arange(self.batch) + torch.rand(self.batch)) / self.batch
        t = (strata * self.scheduler.config.num_train_timesteps).long()
        x_t = self.scheduler.add_noise(x_0, noise, t)
        target = self.scheduler.get_velocity(x_0, noise, t)
        part = self.part
        return F.mse_loss(self.model(x_t[part], t[part], condition[part]).sample, target[part]), {}

    @torch.no_grad()
    def picture(self) -> torch.Tensor:
        rng = np.random.default_rng(5)
        prompts = [caption(sample_scene(rng, LONG_TAIL), rng, LONG_TAIL) for _ in range(24)]
        prompts += ["a green dog", "a dog on the moon", "four pandas", "a dog and a cat"]
        prompts += ["a red frog and a blue pig", "three rabbits", "a cat above a car", "a blue lion"]
        condition = torch.cat([self.embed(prompts), self.embed([""] * len(prompts))])
        x_t = torch.randn(len(prompts), *self.latents.shape[1:], generator=torch.Generator().manual_seed(1))
        self.scheduler.set_timesteps(20)
        for t in self.scheduler.timesteps:
            conditional, unconditional = self.model(torch.cat([x_t, x_t]), t, condition).sample.chunk(2)
            guided = unconditional + 3.0 * (conditional - unconditional)
            x_t = self.scheduler.step(guided, t, x_t).prev_sample
        (self.folder / self.name / "samples.txt").write_text("\n".join(prompts))
        return grid(self.vae.decode(x_t / self.scale).sample / 2 + 0.5, 8)


class RefineStage(UnetStage):
    """The denoiser again, from where `unet` ended, on composed scenes.

    The shipped weights took two runs of 5400 and 3600 steps (`docs/world.md`).
    """

    name = "refine"
    steps = 9000
    learning_rate = 6e-4
    frequencies = COMPOSED

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        load_stage(self, folder, "unet").train().requires_grad_(True)


@torch.no_grad()
def latent_scale(vae: Any) -> float:
    """The factor that gives latents of `LONG_TAIL` scenes unit standard deviation."""
    _, pictures, _ = scene_batch(np.random.default_rng([SEED, 98]), 1024, LONG_TAIL)
    latents = [vae.encode(part * 2 - 1).latent_dist.mean for part in pictures.split(64)]
    return 1 / torch.cat(latents).std().item()


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """CLIP's text model as the class that Stable Diffusion pipelines hold."""
    text_encoder = CLIPTextModel(clip.config.text_config)
    text_encoder.load_state_dict(clip.text_model.state_dict())
    return text_encoder.eval().requires_grad_(False)


def grid(pictures: torch.Tensor, columns: int) -> torch.Tensor:
    """`(B, 3, H, W)` → one picture `(3, rows·2H, columns·2W)`, enlarged twice."""
    rows = [torch.cat(list(pictures[i : i + columns]), 2) for i in range(0, len(pictures), columns)]
    return F.interpolate(torch.cat(rows, 1)[None], scale_factor=2)[0]


def load_stage(stage: Stage, folder: Path, name: str | None = None) -> Any:
    """The stage's model with the averaged weights of the stage called `name` (its own by default), frozen.

    They are half-precision on disk, as in the shipped pipeline: a stage starts from what ships.

    Raises:
        SystemExit: if the stage has not been trained in `folder`.
    """
    name = name or stage.name
    file = folder / name / "ema.safetensors"
    if not file.exists():
        raise SystemExit(f"stage {name!r} has not been trained in {folder}: run it first")
    stage.model.load_state_dict(load_file(file), strict=False)
    return stage.model.eval().requires_grad_(False)


STAGES: dict[str, Callable[[Path], Stage]] = {
    "clip": lambda folder: ClipStage(),
    "vae": lambda folder: VaeStage(),
    "decoder": DecoderStage,
    "unet": UnetStage,
    "refine": RefineStage,
    "reward": RewardStage,
}
