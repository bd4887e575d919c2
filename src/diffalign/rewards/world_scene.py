"""The exact judge as a reward: the share of the prompt's conditions that hold in the picture."""

from torch import Tensor

from diffalign.world.judge import judge


def world_scene(images: Tensor, prompts: list[str]) -> Tensor:
    """Graded scores `(B,)` in [0, 1] of pictures `(B, 3, 64, 64)` or videos `(B, F, 3, 64, 64)`."""
    return judge(images, prompts)[1]
