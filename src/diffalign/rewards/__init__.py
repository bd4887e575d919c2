"""REWARD: scores of pictures. Each reward has a file, and a row of `REWARDS`.

A reward is any callable `(images, prompts) -> (B,)`: from images `(B, 3, H, W)`, float32 in [0, 1], and a
list of B prompts to B finite numbers; higher is better. It is a black box: no gradient passes. Rewards of TRL
and ddpo-pytorch, `(images, prompts, metadata) -> ((B,), info)`, are taken as they are, and what has an
attribute `pictures = "pil"` gets PIL pictures.
"""

import importlib
import re
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diffalign.rewards.composite import Composite, composed
from diffalign.rewards.scoring import RewardError, RewardFunction, score, takes
from diffalign.settings.choices import unknown


@dataclass(frozen=True)
class Row:
    """A registered reward.

    Attributes:
        factory: `module:attribute` of a function, or of a class, which is called to make the reward.
        description: for the list of rewards.
    """

    factory: str
    description: str


REWARDS = {
    "clip": Row("diffalign.rewards.clip:ClipScore", "CLIPScore of any CLIP, 100 · cosine"),
    "pickscore": Row("diffalign.rewards.pickscore:PickScore", "which picture people would pick"),
    "hps": Row("diffalign.rewards.hps:HpsScore", "HPSv2: which picture people prefer"),
    "image-reward": Row("diffalign.rewards.image_reward:ImageReward", "how people rank prompt and picture"),
    "aesthetic": Row("diffalign.rewards.aesthetic:Aesthetic", "LAION's aesthetic predictor, 1 to 10"),
    "bert-score": Row(
        "diffalign.rewards.bertscore:BertScore", "how much of the prompt a description of the picture holds"
    ),
    "viclip": Row("diffalign.rewards.viclip:ViClip", "how well video and prompt agree"),
    "frame-consistency": Row(
        "diffalign.rewards.frame_consistency:FrameConsistency", "how steady a video is, −1 to 1"
    ),
    "jpeg-compressibility": Row("diffalign.rewards.jpeg:jpeg_compressibility", "minus kilobytes of the JPEG"),
    "jpeg-incompressibility": Row("diffalign.rewards.jpeg:jpeg_incompressibility", "kilobytes of the JPEG"),
    "remote": Row(
        "diffalign.rewards.remote:RemoteReward", "that of a diffalign serve, as remote@http://host:port"
    ),
    "vlm": Row("diffalign.rewards.vlm:VlmJudge", "a vision-language model, as vlm@http://host:port/v1#model"),
    "world-clip": Row(
        "diffalign.rewards.world_clip:WorldClip", "CLIPScore of the world's CLIP: learned, imperfect"
    ),
    "world-scene": Row(
        "diffalign.rewards.world_scene:world_scene", "share of the prompt's conditions that hold: exact"
    ),
}


def load_reward(
    name: str, *, device: str | torch.device | None = None, offload: bool = False
) -> RewardFunction:
    """The reward called `name`, or the callable at `module:attribute` (also from the working folder).

    A class is called to make the reward, and so is a function of no argument, as ddpo-pytorch's are.

    `name@checkpoint` loads a network's weights from another folder, or another repository of the hub;
    "clip + 0.5*aesthetic" is a weighted sum.

    Arguments:
        device: of a registered network; the accelerator, if there is one, by default.
        offload: whether such a network waits on the CPU between two calls.

    Raises:
        RewardError: if there is none, its module fails, or its weights are not there.
    """
    if is_sum(name):
        return composed(name, partial(load_reward, device=device, offload=offload))
    registered, _, checkpoint = name.partition("@")
    if registered in REWARDS:
        factory = _attribute(REWARDS[registered].factory)
        if checkpoint and not (isinstance(factory, type) and hasattr(factory, "published")):
            raise RewardError(f"the reward {registered!r} has no checkpoints to choose from; leave out @")
        if not isinstance(factory, type):
            return factory
        options = {"device": device, "offload": offload} if hasattr(factory, "to_device") else {}
        reward: RewardFunction = factory(checkpoint, **options) if checkpoint else factory(**options)
        if hasattr(reward, "check_connection"):  # its server may be gone
            reward.check_connection()
        return reward
    if ":" in registered:
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:  # a user's module may raise anything
            factory = _attribute(name)
            made: Any = factory() if isinstance(factory, type) or takes(factory, 0) else factory
        except RewardError:
            raise
        except Exception as error:
            raise RewardError(f"the reward {name!r} raised {type(error).__name__}: {error}") from error
        if not callable(made):
            raise RewardError(
                f"{name} is a {type(made).__name__}; a reward is a function (images, prompts) -> (B,)"
            )
        reward = made
        return reward
    hint = "a sum has blanks around its signs: 'clip + 0.5*aesthetic'" if "+" in registered else None
    alternative = "or give your own as my_module:my_function"
    raise RewardError(unknown("reward", registered, REWARDS, alternative=alternative, hint=hint))


def is_sum(name: str) -> bool:
    """Whether a reward's name describes a weighted sum."""
    return "*" in name or re.search(r"\s[+-]\s", name) is not None


def component_means(reward: RewardFunction) -> dict[str, Any]:
    """The entry "components" for a line of metrics: the mean of each reward of a weighted sum, by name.

    The means are over the pictures that were scored since the last call. Empty if `reward` is no sum.
    """
    return {"components": reward.components()} if isinstance(reward, Composite) else {}


def _attribute(path: str) -> RewardFunction | type:
    """What `module:attribute` names."""
    name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        hint = "; pip install 'diffalign[rewards]'" if name.startswith(__name__) else ""
        if name.endswith(".py"):
            hint = f"; did you mean {name.removesuffix('.py')}:{attribute}?"
        raise RewardError(f"cannot import the reward {path!r}: {error}{hint}") from error
    if not hasattr(module, attribute):
        raise RewardError(f"the module {name!r} has no {attribute!r}")
    factory: RewardFunction | type = getattr(module, attribute)
    return factory


__all__ = ["REWARDS", "RewardError", "RewardFunction", "load_reward", "score"]
