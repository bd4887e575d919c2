"""Stages `unet` and `refine`: the denoiser of latents, conditioned on captions."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from diffalign.world.grammar import caption
from diffalign.world.render import render, to_tensor
from diffalign.world.scenes import sample_scene
from recipes.world import models
from recipes.world.data import COMPOSED, LONG_TAIL
from recipes.world.stages.autoencoder import VaeStage, latent_scale
from recipes.world.stages.clip import ClipStage, text_tower
from recipes.world.stages.stage import SEED, Stage, grid, load_stage


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
        """The text encoder's states of `B` captions, with shape `(B, 16, 128)`."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        states: torch.Tensor = self.text_encoder(tokens.input_ids).last_hidden_state
        return states

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The mean squared error of the velocities of batch `step`; nothing more to log."""
        rng = self.batch_generator(step)
        chosen = rng.integers(0, self.scenes, self.batch)
        rows = self.rows[chosen, rng.integers(0, 2, self.batch)]
        rows[rng.random(self.batch) < self.dropped_captions] = 0
        condition = self.conditions[rows]
        x_0 = self.latents[torch.from_numpy(chosen)].contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(x_0)
        # one time in each of B equal strata: less variance than independent draws
        time = (torch.arange(self.batch) + torch.rand(self.batch)) / self.batch
        x_t, t, target = self.noised(x_0, noise, time)
        part = self.part
        return F.mse_loss(self.model(x_t[part], t[part], condition[part]).sample, target[part]), {}

    def noised(
        self, x_0: torch.Tensor, noise: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, timesteps and velocities of latents `(B, 8, 8, 8)` at times `(B,)` in [0, 1)."""
        t = (time * self.scheduler.config.num_train_timesteps).long()
        return self.scheduler.add_noise(x_0, noise, t), t, self.scheduler.get_velocity(x_0, noise, t)

    @torch.no_grad()
    def picture(self) -> torch.Tensor:
        """Pictures of 24 long-tailed captions and 8 unusual prompts, which `samples.txt` lists."""
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
