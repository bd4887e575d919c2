"""ViCLIP: a CLIP ViT-L/14 that sees a video's patches in space and time at once; the cosine with the prompt.

Checkpoint: OpenGVLab/ViCLIP-L-14-hf (its card names no licence; the publishers' code is Apache-2.0); the
tokenizer is that of openai/clip-vit-large-patch14 (MIT).
References: Wang et al. (ICLR 2024), https://arxiv.org/abs/2307.06942
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from diffalign.rewards.checkpoints import weights_of
from diffalign.rewards.clip import TOKENIZER, ClipScore
from diffalign.rewards.hps import clip_of

FILES = ("model.safetensors", "ViClip-InternVid-10M-FLT.pth", "ViCLIP-L_InternVid-FLT-10M.pth")
HEAD = 64  # of each tower's width
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ViClip(ClipScore):
    """How well video and prompt agree, from −1 to 1; FIND reports 0.21 to 0.28.

    A picture counts as a video of one frame.
    """

    published = "OpenGVLab/ViCLIP-L-14-hf"
    others = (ClipScore.published,)

    def load(self) -> CLIPModel:
        """A CLIP with the published weights, and the places in time of its patches."""
        weights = weights_of(self.checkpoint, FILES, self.local)
        has = (Path(self.checkpoint) / TOKENIZER).exists()
        self.tokenizer = self.read(CLIPTokenizer, self.checkpoint if has else self.processors)
        weights = {
            name.replace("vision_encoder.", "visual.").removeprefix("text_encoder."): value
            for name, value in weights.get("model", weights).items()
        }
        weights["visual.conv1.weight"] = weights["visual.conv1.weight"].squeeze(2)  # one frame deep
        weights["logit_scale"] = -weights["temp"].log()
        widths = len(weights["visual.conv1.weight"]), weights["token_embedding.weight"].shape[1]
        heads = (widths[0] // HEAD or 1, widths[1] // HEAD or 1)
        network = clip_of(weights, self.tokenizer.eos_token_id, heads, "quick_gelu")
        network.register_buffer("times", weights["visual.temporal_positional_embedding"].float())
        self.tokenizer.model_max_length = network.config.text_config.max_position_embeddings
        return network

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of video `(B, F, 3, H, W)`, or of pictures `(B, 3, H, W)`."""
        video = images if images.ndim == 5 else images[:, None]
        return (self.embed_video(video) * self.embed_prompts(prompts)).sum(-1)

    def embed_video(self, video: Tensor) -> Tensor:
        """Unit embeddings `(B, D)` of as many frames as the network knows, evenly spread."""
        network: Any = self.network
        vision, times = network.vision_model, network.times
        side = network.config.vision_config.image_size
        frames = prepared(sampled(video, times.shape[1]), side)
        B, T = frames.shape[:2]
        pixels = self.place(pixels=frames.flatten(0, 1))["pixels"]
        places = vision.embeddings.position_embedding.weight
        patches = vision.embeddings.patch_embedding(pixels).flatten(2).mT + places[1:]
        # what the publishers do with a single picture
        moments = (times if T > 1 else times.mean(1, keepdim=True)).to(patches.dtype)
        patches = patches.unflatten(0, (B, T)) + moments[:, :, None]
        whole = (vision.embeddings.class_embedding + places[0]).expand(B, 1, -1)
        x = vision.pre_layrnorm(torch.cat([whole, patches.flatten(1, 2)], 1))
        seen = vision.encoder(inputs_embeds=x).last_hidden_state[:, 0]
        return F.normalize(network.visual_projection(vision.post_layernorm(seen)).float(), dim=-1)


def sampled(video: Tensor, frames: int) -> Tensor:
    """So many frames of `video`, evenly spread, some of them twice if it has fewer; a picture stays one."""
    length = video.shape[1]
    if length == 1:
        return video
    if length < frames:
        return video[:, torch.arange(frames) * length // frames]
    return video[:, :: length // frames][:, :frames]


def prepared(video: Tensor, side: int) -> Tensor:
    """Frames `(B, T, 3, side, side)`, resized bilinearly without regard to their proportions, normalised."""
    pixels = (video.float().clamp(0, 1) * 255).round() / 255
    pixels = F.interpolate(pixels.flatten(0, 1), (side, side), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(value, device=video.device).view(3, 1, 1) for value in (MEAN, STD))
    return ((pixels - mean) / std).unflatten(0, video.shape[:2])
