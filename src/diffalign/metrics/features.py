"""Features of pictures, for metrics of a set of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffalign.metrics.diversity import embed_pixels
from diffalign.settings.choices import unknown


def feature_reader(name: str, device: torch.device | None = None) -> Callable[[Tensor], Tensor]:
    """A function from pictures `(B, 3, H, W)` in [0, 1] to features `(B, D)`, not normalised.

    Arguments:
        name: "clip" or "clip@CHECKPOINT" (a CLIP of transformers), "world-clip" (the embedded world's), or
            "pixels" (16×16 of them).
        device: of a CLIP; the accelerator, if there is one, by default.

    Raises:
        RewardError: if the CLIP cannot be loaded.
        ValueError: if there are no features of that name.
    """
    kind, _, checkpoint = name.partition("@")
    if kind == "clip":
        from diffalign.rewards.clip import ClipScore
        from diffalign.rewards.scoring import as_pictures

        clip = ClipScore(checkpoint, device=device)
        return torch.inference_mode()(lambda images: clip.image_features(as_pictures(images)))
    if name == "world-clip":
        from diffalign.rewards.world_clip import WorldClip

        return WorldClip().image_features
    if name == "pixels":
        return embed_pixels
    raise ValueError(unknown("features", name, ("clip", "clip@CHECKPOINT", "world-clip", "pixels")))
