"""UPDATE: the learners of an initial-noise policy and of a denoiser, and the loops around them.

for step in train(learner, environment, prompt, reward): ...
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffalign.training.config import ConfigError
from diffalign.training.generator_config import GeneratorConfig
from diffalign.training.noise_config import ADVANTAGES, NoiseConfig
from diffalign.training.tune_config import TuneConfig

if TYPE_CHECKING:
    from diffalign.training.generating import GeneratorLearner, GeneratorRound, train_generator
    from diffalign.training.learner import NoiseLearner
    from diffalign.training.loop import Step, train
    from diffalign.training.tuner import Tuner
    from diffalign.training.tuning import Round, tune

_LATER = {
    "GeneratorLearner": "generating",
    "GeneratorRound": "generating",
    "NoiseLearner": "learner",
    "Round": "tuning",
    "Step": "loop",
    "Tuner": "tuner",
    "train": "loop",
    "train_generator": "generating",
    "tune": "tuning",
}
__all__ = [
    "ADVANTAGES",
    "ConfigError",
    "GeneratorConfig",
    "GeneratorLearner",
    "GeneratorRound",
    "NoiseConfig",
    "NoiseLearner",
    "Round",
    "Step",
    "TuneConfig",
    "Tuner",
    "train",
    "train_generator",
    "tune",
]


def __getattr__(name: str) -> Any:
    # what needs torch is loaded on first use: the settings alone are enough for `--help`
    if name in _LATER:
        return getattr(import_module(f"diffalign.training.{_LATER[name]}"), name)
    raise AttributeError(f"module 'diffalign.training' has no attribute {name!r}")
