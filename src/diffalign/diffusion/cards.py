"""Models that are known by an alias, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffalign.diffusion.protocol import Pipeline
from diffalign.world import FLOW_FOLDER, VIDEO_FOLDER, WORLD_FOLDER
from diffalign.world.clips import FRAMES


@dataclass(frozen=True)
class Card:
    """What is known of a model.

    Attributes:
        description: for the list of models.
        source: folder or hub name that it is loaded from.
        guidance_scale: of classifier-free guidance; None keeps the default of the pipeline's class.
        base: folder of the pipeline from which the parts come that `source` lacks.
        call: further arguments of the pipeline's call, where its class's defaults are another model's.
    """

    description: str
    source: str | Path
    guidance_scale: float | None = None
    base: Path | None = None
    call: Mapping[str, Any] = field(default_factory=dict)


CARDS = {
    "world": Card("the embedded 64×64 emoji world, shipped with the package", WORLD_FOLDER, 3.0),
    "world-flow": Card(
        "the embedded world with flow matching, shipped with the package", FLOW_FOLDER, 3.0, WORLD_FOLDER
    ),
    "world-video": Card(
        "the embedded world in motion, shipped with the package",
        VIDEO_FOLDER,
        3.0,
        WORLD_FOLDER,
        {"num_frames": FRAMES},
    ),
    "sd15": Card("Stable Diffusion 1.5", "stable-diffusion-v1-5/stable-diffusion-v1-5"),
    "sdxl": Card("Stable Diffusion XL 1.0", "stabilityai/stable-diffusion-xl-base-1.0"),
    "modelscope": Card("ModelScope text-to-video 1.7B", "ali-vilab/text-to-video-ms-1.7b"),
}


def card_of(pipeline: Pipeline) -> Card | None:
    """The card of a pipeline that `load_pipeline` loaded by its alias, else None."""
    return CARDS.get(str(getattr(getattr(pipeline, "config", None), "_name_or_path", "")))
