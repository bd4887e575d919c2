"""WORLD: the embedded world: scenes, grammar, renderer, judge and weights. See `docs/world.md`.

The recipe that makes the weights is beside the package, in `recipes/world`.
"""

from pathlib import Path

#: A `StableDiffusionPipeline` as `save_pretrained` writes it, and beside it `clip/`.
WORLD_FOLDER = Path(__file__).parent / "weights"
