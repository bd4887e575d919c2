"""diffalign: align diffusion models with a reward by reinforcement learning.

from diffalign import find, load_pipeline
run = find(load_pipeline("world"), "a blue car on the moon", "world-clip")
noise = run.run()
"""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffalign.diffusion import Sampler, load_pipeline
    from diffalign.learners.contract import Learner
    from diffalign.loop import Round, train
    from diffalign.methods import anchors, distil, find, noise_ppo, search, tune
    from diffalign.policies import NoiseDistribution, NoiseGenerator
    from diffalign.prompts import load_prompts
    from diffalign.rewards import load_reward
    from diffalign.run.opening import load_artifact, open_artifact

# which of its kernels are missing: it says so when peft imports it, whether they are wanted or not
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

__version__ = "0.1.0"  # the one place: pyproject.toml reads it from here

#: What each room offers here.
_OFFERED = {
    "diffusion": ("Sampler", "load_pipeline"),
    "learners.contract": ("Learner",),
    "loop": ("Round", "train"),
    "methods": ("anchors", "distil", "find", "noise_ppo", "search", "tune"),
    "policies": ("NoiseDistribution", "NoiseGenerator"),
    "prompts": ("load_prompts",),
    "rewards": ("load_reward",),
    "run.opening": ("load_artifact", "open_artifact"),
}
__all__ = [
    "Learner",
    "NoiseDistribution",
    "NoiseGenerator",
    "Round",
    "Sampler",
    "anchors",
    "distil",
    "find",
    "load_artifact",
    "load_pipeline",
    "load_prompts",
    "load_reward",
    "noise_ppo",
    "open_artifact",
    "search",
    "train",
    "tune",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    # loaded on first use: `import diffalign` must not cost an import of diffusers
    for room, names in _OFFERED.items():
        if name in names:
            return getattr(import_module(f"diffalign.{room}"), name)
    raise AttributeError(f"module 'diffalign' has no attribute {name!r}")
