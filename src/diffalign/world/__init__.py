"""WORLD: the embedded world: scenes, grammar, renderer, judge and weights. See `docs/world.md`.

The recipe that makes the weights is beside the package, in `recipes/world`.
"""

from pathlib import Path

#: A `StableDiffusionPipeline` as `save_pretrained` writes it, and beside it `clip/`.
WORLD_FOLDER = Path(__file__).parent / "weights"

#: What the same pipeline with flow matching has of its own: denoiser, scheduler and `model_index.json`.
FLOW_FOLDER = Path(__file__).parent / "flow"

#: What the pipeline of videos has of its own.
VIDEO_FOLDER = Path(__file__).parent / "video"

#: Aliases of the models that draw the world, and so have its judge, its reward and its measure of diversity.
WORLD_MODELS = ("world", "world-flow", "world-video")

#: Of these, the one that draws videos.
WORLD_VIDEO = "world-video"
