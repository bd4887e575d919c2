"""diffalign: align diffusion models with a reward by reinforcement learning.

from diffalign import find, load_pipeline
run = find(load_pipeline("world"), "a blue car on the moon", "world-clip")
noise = run.run()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffalign.diffusion import Sampler, load_pipeline
    from diffalign.methods import find, noise_ppo, tune
    from diffalign.policies import NoiseDistribution
    from diffalign.policies.generator import NoiseGenerator
    from diffalign.prompts import load_prompts
    from diffalign.rewards import load_reward
    from diffalign.search import best_of_n
    from diffalign.training import NoiseConfig, Round, Step, TuneConfig

__version__ = "0.1.0"  # the one place: pyproject.toml reads it from here

_HOME = {
    "NoiseConfig": "training",
    "NoiseDistribution": "policies",
    "NoiseGenerator": "policies.generator",
    "Round": "training",
    "Sampler": "diffusion",
    "Step": "training",
    "TuneConfig": "training",
    "best_of_n": "search",
    "find": "methods",
    "load_pipeline": "diffusion",
    "load_prompts": "prompts",
    "load_reward": "rewards",
    "noise_ppo": "methods",
    "tune": "methods",
}
__all__ = [
    "NoiseConfig",
    "NoiseDistribution",
    "NoiseGenerator",
    "Round",
    "Sampler",
    "Step",
    "TuneConfig",
    "best_of_n",
    "find",
    "load_pipeline",
    "load_prompts",
    "load_reward",
    "noise_ppo",
    "tune",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    # loaded on first use: `import diffalign` must not cost an import of diffusers
    if name in _HOME:
        return getattr(import_module(f"diffalign.{_HOME[name]}"), name)
    raise AttributeError(f"module 'diffalign' has no attribute {name!r}")
