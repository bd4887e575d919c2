"""What a reward is, what goes wrong with one, and its scores, checked."""

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image
from torch import Tensor

#: Of a reward's size: its square, summed over a million pictures, is still a number of 32 bits.
GREATEST = 1e16

#: `(images, prompts)`, or `(images, prompts, metadata)` as TRL and ddpo-pytorch call it, to B numbers, or to
#: these and a dictionary, which is not read. Its attribute `pictures = "pil"` asks for PIL pictures.
RewardFunction = Callable[..., Tensor | ArrayLike | tuple[Tensor | ArrayLike, Mapping[str, Any]]]
PIL = "pil"
_CALLED = (
    "a reward is called with (images, prompts), or also metadata; its pictures are tensors (B, 3, H, W) in "
    '[0, 1], or PIL pictures if its attribute pictures is "pil"'
)


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
    given: list[Any] = [None, list(prompts)]
    if takes(reward, 3):
        given.append([{} for _ in prompts])
    if len(images) != len(prompts):
        raise RewardError(f"{len(images)} pictures need as many prompts, not {len(prompts)}")
    try:
        if getattr(reward, "pictures", None) == PIL:
            given[0] = _as_pil(images)
        else:  # by default a copy, as the judge and the artefacts read the pictures next
            given[0] = images.clone() if copy else images
        returned: Any = reward(*given)
    except RewardError:  # its message suffices
        raise
    except Exception as error:  # a user's code may raise anything; the run must stop with its state saved
        *_, last = traceback.extract_tb(error.__traceback__)
        line = f"{Path(last.filename).name}, line {last.lineno}"
        failed = RewardError(f"the reward {name} raised {type(error).__name__}: {error} ({line})")
        if isinstance(error, AttributeError | TypeError):  # as of what takes pictures for other things
            failed.add_note(_CALLED)
        raise failed from error
    if isinstance(returned, tuple) and len(returned) == 2 and isinstance(returned[1], Mapping):
        returned = returned[0]
    if returned is None:
        raise RewardError(f"the reward {name} returned None; it must return a number for each picture")
    try:
        values = _as_numbers(returned)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise RewardError(f"the reward {name} returned a {type(returned).__name__}, not B numbers") from error
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


def _as_numbers(returned: Any) -> Tensor:
    """What a reward returned as float32 on the CPU; NumPy and torch raise several errors where it is none."""
    if isinstance(returned, list | tuple):  # of tensors too, which may be elsewhere, or have a gradient
        returned = [each.tolist() if isinstance(each, Tensor) else each for each in returned]
    if "complex" in str(getattr(returned, "dtype", "")):
        raise TypeError("complex numbers have no order")
    if isinstance(returned, Tensor):
        returned = returned.detach().float().cpu().numpy()
    return torch.from_numpy(np.array(returned, dtype=np.float32, order="C"))


def takes(reward: Callable[..., Any], number: int) -> bool:
    """Whether a function must be given as many arguments as `number`, or if that is 0 takes none at all."""
    try:
        parameters = inspect.signature(reward).parameters.values()
    except (TypeError, ValueError):  # of a builtin
        return False
    kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    needed = [p for p in parameters if p.kind in kinds and p.default is inspect.Parameter.empty]
    return len(needed) == number if number else not parameters


def as_pictures(images: Tensor) -> list[Image.Image]:
    """Tensors `(B, 3, H, W)` in [0, 1] as B RGB pictures, rounded as diffusers does."""
    pixels = (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    return [Image.fromarray(picture) for picture in pixels.permute(0, 2, 3, 1).numpy()]


def _as_pil(images: Tensor) -> list[Any]:
    """Pictures; of video a list of frames each."""
    return as_pictures(images) if images.ndim == 4 else [as_pictures(frames) for frames in images]
