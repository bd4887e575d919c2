"""What a reward is, what goes wrong with one, and its scores, checked."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

#: Of a reward's size: its square, summed over a million pictures, is still a number of 32 bits.
GREATEST = 1e16

RewardFunction = Callable[[Tensor, list[str]], Tensor | ArrayLike]


class RewardError(RuntimeError):
    """A reward is unknown, failed, or returned something other than one finite number a picture."""


def score(reward: RewardFunction, images: Tensor, prompts: Sequence[str], *, copy: bool = True) -> Tensor:
    """`reward(images, prompts)`, checked: float32 on the CPU with shape `(B,)`, all finite.

    Arguments:
        copy: whether the pictures are read again, which the reward may change; it gets a copy then.

    Raises:
        RewardError: if the reward raises, or returns another shape or a number that is not finite.
    """
    name = getattr(reward, "__name__", type(reward).__name__)
    if len(images) != len(prompts):
        raise RewardError(f"{len(images)} pictures need as many prompts, not {len(prompts)}")
    try:
        # by default a copy, as the judge and the artefacts read the pictures next
        values = reward(images.clone() if copy else images, list(prompts))
    except RewardError:  # its message suffices
        raise
    except Exception as error:  # a user's code may raise anything; the run must stop with its state saved
        *_, last = traceback.extract_tb(error.__traceback__)
        line = f"{Path(last.filename).name}, line {last.lineno}"
        raise RewardError(f"the reward {name} raised {type(error).__name__}: {error} ({line})") from error
    try:
        array = values if isinstance(values, Tensor) else np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise RewardError(f"the reward {name} returned a {type(values).__name__}, not B numbers") from error
    values = torch.as_tensor(array).detach().float().cpu()
    if values.shape != (len(images),):
        raise RewardError(
            f"the reward {name} returned shape {tuple(values.shape)} for {len(images)} pictures; "
            f"it must be ({len(images)},)"
        )
    if not values.isfinite().all():
        bad = int((~values.isfinite()).nonzero()[0])
        half = getattr(reward, "dtype", None) == torch.float16
        mend = "compute it in float32, as with --reward-device cpu" if half else "give each a finite number"
        raise RewardError(
            f"the reward {name} returned {values[bad].item()} for picture {bad} of {len(images)}; {mend}"
        )
    if (great := values.abs().max() if len(values) else 0) > GREATEST:
        raise RewardError(
            f"the reward {name} returned {great:.2g}, whose square is no number of 32 bits; scale it down"
        )
    return values
