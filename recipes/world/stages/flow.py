"""Stage `flow`: the denoiser as a flow-matching model, of the alias `world-flow`.

    x_t = (1 − t) x_0 + t ε,    target v = ε − x_0,    timestep = 1000 t,    t uniform in [0, 1)

References: Lipman et al. (2023), "Flow matching for generative modeling", arXiv 2210.02747; Liu et al.
            (2023), "Flow straight and fast", arXiv 2209.03003
"""

from pathlib import Path

import torch

from recipes.world import models
from recipes.world.data import COMPOSED
from recipes.world.stages.denoiser import UnetStage
from recipes.world.stages.stage import load_stage


class FlowStage(UnetStage):
    """The denoiser once more, from the world's weights, with the paths and velocities of flow matching."""

    name = "flow"
    steps = 4000
    learning_rate = 6e-4
    frequencies = COMPOSED

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.scheduler = models.build_flow_scheduler()
        load_stage(self, folder, trained_denoiser(folder)).train().requires_grad_(True)

    def noised(
        self, x_0: torch.Tensor, noise: torch.Tensor, time: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Noisy latents, timesteps and velocities of latents `(B, 8, 8, 8)` at times `(B,)` in [0, 1)."""
        t = time.view(-1, 1, 1, 1)
        return (1 - t) * x_0 + t * noise, time * self.scheduler.config.num_train_timesteps, noise - x_0


def trained_denoiser(folder: Path) -> str:
    """The stage in `folder` whose denoiser is the world's: `refine`, where that was trained, else `unet`."""
    return "refine" if (folder / "refine" / "ema.safetensors").exists() else "unet"
