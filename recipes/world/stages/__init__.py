"""The stages of the recipe, in the order in which they train: one module for each model."""

from collections.abc import Callable
from pathlib import Path

from recipes.world.stages.autoencoder import DecoderStage, VaeStage
from recipes.world.stages.clip import ClipStage
from recipes.world.stages.denoiser import RefineStage, UnetStage
from recipes.world.stages.flow import FlowStage
from recipes.world.stages.reward import RewardStage
from recipes.world.stages.stage import Stage
from recipes.world.stages.video import VideoStage

#: Name of a stage → what makes it, given the folder that all stages are trained in.
STAGES: dict[str, Callable[[Path], Stage]] = {
    "clip": lambda folder: ClipStage(),
    "vae": lambda folder: VaeStage(),
    "decoder": DecoderStage,
    "unet": UnetStage,
    "refine": RefineStage,
    "flow": FlowStage,
    "reward": RewardStage,
    "video": VideoStage,
}

__all__ = ["STAGES"]
