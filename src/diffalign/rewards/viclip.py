"""ViCLIP: a CLIP ViT-L/14 that sees a video's patches in space and time at once; the cosine with the prompt.

Checkpoint: OpenGVLab/ViCLIP-L-14-hf (its card names no licence; the publishers' code is Apache-2.0); the
tokenizer is that of openai/clip-vit-large-patch14 (MIT).
References: Wang et al. (ICLR 2024), https://arxiv.org/abs/2307.06942
"""

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
HEAD_WIDTH = 64  # of both towers' attention heads
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class ViClip(ClipScore):
    """How well video and prompt agree, from −1 to 1; FIND reports 0.21 to 0.28.

    A picture counts as a video of one frame.
    """

    published = "OpenGVLab/ViCLIP-L-14-hf"
    others = (ClipScore.published,)

    def load(self) -> CLIPModel:
        """A CLIP with the published weights, and the temporal position embeddings as its buffer `times`."""
        weights = weights_of(self.checkpoint, FILES, self.local)
        has_tokenizer = (Path(self.checkpoint) / TOKENIZER).exists()
        self.tokenizer = self.read(CLIPTokenizer, self.checkpoint if has_tokenizer else self.processors)
        weights = {
            name.replace("vision_encoder.", "visual.").removeprefix("text_encoder."): value
            for name, value in weights.get("model", weights).items()
        }
        weights["visual.conv1.weight"] = weights["visual.conv1.weight"].squeeze(2)  # one frame deep
        weights["logit_scale"] = -weights["temp"].log()
        widths = len(weights["visual.conv1.weight"]), weights["token_embedding.weight"].shape[1]
        heads = (widths[0] // HEAD_WIDTH or 1, widths[1] // HEAD_WIDTH or 1)
        network = clip_of(weights, self.tokenizer.eos_token_id, heads, "quick_gelu")
        network.register_buffer("times", weights["visual.temporal_positional_embedding"].float())
        self.tokenizer.model_max_length = network.config.text_config.max_position_embeddings
        return network

    def score_batch(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Scores `(B,)` of video `(B, F, 3, H, W)`, or of pictures `(B, 3, H, W)`."""
        video = images if images.ndim == 5 else images[:, None]
        return (self.embed_video(video) * self.embed_prompts(prompts)).sum(-1)

    def embed_video(self, video: Tensor) -> Tensor:
        """Unit embeddings `(B, D)` of video `(B, F, 3, H, W)`, from as many frames as the network takes."""
        network: Any = self.network
        vision, times = network.vision_model, network.times
        side = network.config.vision_config.image_size
        frames = resized(sampled(video, times.shape[1]), side)
        B, T = frames.shape[:2]
        pixels = self.to_device(pixels=frames.flatten(0, 1))["pixels"]
        positions = vision.embeddings.position_embedding.weight
        patches = vision.embeddings.patch_embedding(pixels).flatten(2).mT + positions[1:]
        # the publishers give a single picture the mean of all times
        times = (times if T > 1 else times.mean(1, keepdim=True)).to(patches.dtype)
        patches = patches.unflatten(0, (B, T)) + times[:, :, None]
        class_token = (vision.embeddings.class_embedding + positions[0]).expand(B, 1, -1)
        x = vision.pre_layrnorm(torch.cat([class_token, patches.flatten(1, 2)], 1))
        pooled = vision.encoder(inputs_embeds=x).last_hidden_state[:, 0]
        return F.normalize(network.visual_projection(vision.post_layernorm(pooled)).float(), dim=-1)


def sampled(video: Tensor, frames: int) -> Tensor:
    """Evenly spaced frames `(B, frames, 3, H, W)` of video `(B, F, 3, H, W)`, some twice if F is smaller.

    Of a video of one frame it is that frame alone.
    """
    length = video.shape[1]
    if length == 1:
        return video
    if length < frames:
        return video[:, torch.arange(frames) * length // frames]
    return video[:, :: length // frames][:, :frames]


def resized(video: Tensor, side: int) -> Tensor:
    """Frames `(B, T, 3, side, side)` of video `(B, T, 3, H, W)`, stretched bilinearly and normalised."""
    pixels = (video.float().clamp(0, 1) * 255).round() / 255
    pixels = F.interpolate(pixels.flatten(0, 1), (side, side), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(value, device=video.device).view(3, 1, 1) for value in (MEAN, STD))
    normalised: Tensor = ((pixels - mean) / std).unflatten(0, video.shape[:2])
    return normalised
