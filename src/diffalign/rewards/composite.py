r"""A weighted sum of rewards, each in units of its standard deviation.

    r(x, c) = Σ_i w_i (r_i(x, c) − m_i) / s_i

m_i and s_i are mean and standard deviation of reward i on reference pictures: scenes of the embedded world,
each once with its caption and once with another scene's. They are the same in every run, so that a sum does
not depend on what was scored before, and a resumed run goes on with the same sum.
"""

import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffalign.rewards.scoring import RewardError, RewardFunction, score

SCENES = 24  # of the reference, each scored twice
LEAST_SPREAD = 1e-6  # of scores, relative to their mean: less is rounding, and no scale
#: A reward, perhaps with a weight before it: `clip`, `0.5*aesthetic`.
_TERM = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?([^\s*]+)")


class Composite:
    """A sum of rewards.

    Arguments:
        weights: w, by the names of the rewards.
        rewards: r, by name.

    Raises:
        RewardError: if a reward fails, or does not differ, on the reference pictures.
    """

    def __init__(self, weights: dict[str, float], rewards: dict[str, RewardFunction]) -> None:
        self.weights, self.rewards = weights, rewards
        self._sums, self._count = dict.fromkeys(weights, 0.0), 0
        images, captions = reference()
        self.scales: dict[str, tuple[float, float]] = {}
        for name, reward in rewards.items():
            values = score(reward, images, captions).double()
            mean, std = float(values.mean()), float(values.std())
            if std <= LEAST_SPREAD * max(1.0, abs(mean)):
                raise RewardError(f"{name} gives all reference pictures the same score, so it has no scale")
            self.scales[name] = mean, std

    def __call__(self, images: Tensor, prompts: list[str]) -> Tensor:
        """Sums `(B,)` of pictures `(B, 3, H, W)` in [0, 1]."""
        total, self._count = torch.zeros(len(images)), self._count + len(images)
        for name, reward in self.rewards.items():
            values = score(reward, images, prompts)
            self._sums[name] += float(values.sum())
            mean, std = self.scales[name]
            total += self.weights[name] * (values - mean) / std
        return total

    def components(self) -> dict[str, float]:
        """The mean score of each reward, not standardised, over the pictures since the last call."""
        means = {name: total / max(1, self._count) for name, total in self._sums.items()}
        self._sums, self._count = dict.fromkeys(self.weights, 0.0), 0
        return means


def composed(text: str, load: Callable[[str], RewardFunction]) -> Composite:
    """The sum that `text` describes, such as "clip + 0.5*aesthetic - jpeg-incompressibility".

    Arguments:
        load: a reward's name to the reward.

    Raises:
        RewardError: if `text` is no sum, or a reward in it cannot be loaded.
    """
    weights: dict[str, float] = {}
    sign = 1.0
    for index, token in enumerate(re.split(r"\s+([+-])\s+", text.strip())):
        if index % 2:
            sign = -1.0 if token == "-" else 1.0
            continue
        term = _TERM.fullmatch(token)
        if term is None:
            raise RewardError(
                f"{token!r} in {text!r} is no reward and no weighted one; write for example "
                "'clip + 0.5*aesthetic'"
            )
        weights[term[2]] = weights.get(term[2], 0.0) + sign * float(term[1] or 1)
    return Composite(weights, {name: load(name) for name in weights})


def reference() -> tuple[Tensor, list[str]]:
    """The reference pictures `(2 SCENES, 3, 64, 64)` and captions, of which the second half is wrong."""
    from diffalign.world.grammar import caption
    from diffalign.world.render import render, to_tensor
    from diffalign.world.scenes import EVEN, sample_scene

    rng = np.random.default_rng(0)
    scenes = [sample_scene(rng, EVEN) for _ in range(SCENES)]
    captions = [caption(scene, rng, EVEN) for scene in scenes]
    images = to_tensor([render(scene) for scene in scenes])
    return torch.cat([images, images]), captions + captions[1:] + captions[:1]
