"""Stage `video`: the denoiser of clips, of the alias `world-video`, together with its text encoder."""

import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from diffalign.world.clips import FRAMES, HELD
from diffalign.world.scenes import Frequencies
from recipes.world import models
from recipes.world.data import CLIPS, clip_batch
from recipes.world.stages.autoencoder import DecoderStage, latent_scale
from recipes.world.stages.clip import ClipStage, text_tower
from recipes.world.stages.flow import trained_denoiser
from recipes.world.stages.stage import SEED, Stage, load_stage


class VideoStage(Stage):
    """v-prediction on the latents of clips.

    The layers in space and the text encoder start from the world's; the layers in time start as if they were
    not there. The words of motions are new, so that the text encoder learns too.
    """

    name = "video"
    steps = 3200
    batch = 16
    learning_rate = 8e-4
    clips = 8192
    dropped_captions = 0.1  # for classifier-free guidance
    frequencies: Frequencies = CLIPS

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(SEED + 4)
        self.folder = folder
        self.vae = load_stage(DecoderStage(folder), folder, "decoder")
        self.scale = latent_scale(self.vae)
        self.scheduler = models.build_scheduler()
        self.tokenizer = models.build_tokenizer(models.VIDEO_WORDS)
        unet = models.build_video_unet()
        unet.load_state_dict(spatial_weights(folder, unet.state_dict()), strict=False)
        for name, parameter in unet.named_parameters():
            if is_last_in_time(name):
                torch.nn.init.zeros_(parameter)
        text_encoder = extended_text_encoder(folder, self.tokenizer)
        # never in training mode: the layers in time have dropout, which so small a model does not need
        self.model = torch.nn.ModuleDict({"unet": unet, "text_encoder": text_encoder}).eval()
        self.model.requires_grad_(True)
        self.dataset()

    @torch.no_grad()
    def dataset(self) -> None:
        """Sets the latents `(N, 8, F, 8, 8)` of the clips, and two captions of each."""
        file = self.folder / self.name / "latents.safetensors"
        encoded = file.exists()  # asked once: another process may write it meanwhile
        captions, parts = [], []
        for i in range(0, self.clips, 64):
            rng = np.random.default_rng([SEED, 97, i])
            _, video, texts = clip_batch(rng, 64, self.frequencies)
            captions += texts
            if not encoded:
                places = video[:, ::HELD]
                latents = self.vae.encode(places.flatten(0, 1) * 2 - 1).latent_dist.mean
                latents = latents.unflatten(0, places.shape[:2]).repeat_interleave(HELD, 1)
                parts.append(latents.transpose(1, 2).half())
        if not encoded:
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(f".{os.getpid()}.partial")  # processes may come here together
            save_file({"latents": torch.cat(parts).contiguous()}, partial)
            os.replace(partial, file)
        self.latents = load_file(file)["latents"].float() * self.scale
        self.captions = captions

    def embed(self, captions: list[str]) -> torch.Tensor:
        """The text encoder's states of `B` captions, with shape `(B, 16, 128)`."""
        tokens = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        states: torch.Tensor = self.model["text_encoder"](tokens.input_ids).last_hidden_state
        return states

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, float]]:
        """The mean squared error of the velocities of batch `step`; nothing more to log."""
        rng = self.batch_generator(step)
        chosen = rng.integers(0, self.clips, self.batch)
        dropped = rng.random(self.batch) < self.dropped_captions
        captions = ["" if drop else self.captions[i] for i, drop in zip(chosen, dropped, strict=True)]
        x_0 = self.latents[torch.from_numpy(chosen)]
        noise = torch.randn_like(x_0)
        # one time in each of B equal strata: less variance than independent draws
        time = (torch.arange(self.batch) + torch.rand(self.batch)) / self.batch
        t = (time * self.scheduler.config.num_train_timesteps).long()
        x_t, target = self.scheduler.add_noise(x_0, noise, t), self.scheduler.get_velocity(x_0, noise, t)
        part = self.part
        output = self.model["unet"](x_t[part], t[part], self.embed(captions[part])).sample
        return F.mse_loss(output, target[part]), {}

    @torch.no_grad()
    def picture(self) -> torch.Tensor:
        """A row of frames for each of 8 common and 8 unusual prompts, which `samples.txt` lists."""
        rng = np.random.default_rng(5)
        prompts = clip_batch(rng, 8, self.frequencies)[2]
        prompts += ["a panda moving up", "a car moving down", "an apple moving from left to right"]
        prompts += ["an alien moving from right to left", "a green dog moving from left to right"]
        prompts += ["a blue lion moving down", "a banana moving up", "a purple cat standing still"]
        condition = torch.cat([self.embed(prompts), self.embed([""] * len(prompts))])
        x_t = torch.randn(len(prompts), *self.latents.shape[1:], generator=torch.Generator().manual_seed(1))
        self.scheduler.set_timesteps(20)
        for t in self.scheduler.timesteps:
            velocity = self.model["unet"](torch.cat([x_t, x_t]), t, condition).sample
            conditional, unconditional = velocity.chunk(2)
            guided = unconditional + 3.0 * (conditional - unconditional)
            x_t = self.scheduler.step(guided, t, x_t).prev_sample
        (self.folder / self.name / "samples.txt").write_text("\n".join(prompts))
        frames = self.vae.decode(x_t.transpose(1, 2).flatten(0, 1) / self.scale).sample / 2 + 0.5
        rows = [torch.cat(list(frames[i : i + FRAMES]), 2) for i in range(0, len(frames), FRAMES)]
        halves = [torch.cat(rows[:8], 1), torch.cat(rows[8:], 1)]
        return torch.cat(halves, 2)


def is_last_in_time(name: str) -> bool:
    """Whether the parameter called `name` is of the last layer of a part that mixes frames."""
    return (".temp_convs." in name and ".conv4.3." in name) or (
        ("temp_attentions." in name or "transformer_in." in name) and ".proj_out." in name
    )


def spatial_weights(folder: Path, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of the world's denoiser, what a video denoiser with the parameters `own` takes over.

    Its blocks have one layer less where the world's have two, the second-last of the upward one; and linear
    layers where the world's have 1×1 convolutions.
    """
    world = load_file(folder / trained_denoiser(folder) / "ema.safetensors")
    for layer in ("resnets", "attentions"):
        first, last = f"up_blocks.0.{layer}.1.", f"up_blocks.0.{layer}.2."
        moved = {name.replace(last, first): value for name, value in world.items() if name.startswith(last)}
        world |= moved
    taken = {}
    for name, value in world.items():
        if name in own and value.numel() == own[name].numel():
            taken[name] = value.view_as(own[name])
    return taken


def extended_text_encoder(folder: Path, tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The world's text encoder with the vocabulary of `tokenizer`; new words begin at random."""
    clip, model = ClipStage(), models.build_clip(tokenizer)
    weights = load_stage(clip, folder).state_dict()
    name = next(name for name in weights if name.endswith("token_embedding.weight"))
    rows, known = model.state_dict()[name].clone(), clip.tokenizer.get_vocab()
    for token, i in tokenizer.get_vocab().items():
        if token in known:
            rows[i] = weights[name][known[token]]
    model.load_state_dict({**weights, name: rows})
    return text_tower(model)
