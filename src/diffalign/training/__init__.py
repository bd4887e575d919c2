"""UPDATE: the learner of an initial-noise policy, and the loop around it.

for step in train(learner, environment, prompt, reward): ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffalign.training.config import ADVANTAGES, ConfigError, NoiseConfig

if TYPE_CHECKING:
    from diffalign.training.learner import NoiseLearner
    from diffalign.training.loop import Step, train

_LATER = {"NoiseLearner": "learner", "Step": "loop", "train": "loop"}
__all__ = ["ADVANTAGES", "ConfigError", "NoiseConfig", "NoiseLearner", "Step", "train"]


def __getattr__(name: str) -> Any:
    # what needs torch is loaded on first use: the settings alone are enough for `--help`
    if name in _LATER:
        return getattr(import_module(f"diffalign.training.{_LATER[name]}"), name)
    raise AttributeError(f"module 'diffalign.training' has no attribute {name!r}")
