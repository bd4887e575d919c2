"""The published methods and our defaults: presets that compose the parts."""

from diffalign.methods.find import PRESETS, Find, find, preset
from diffalign.methods.noise_ppo import GENERATOR_PRESETS, NoisePPO, generator_preset, noise_ppo
from diffalign.methods.tune import TUNE_PRESETS, Tune, tune, tune_preset

__all__ = [
    "GENERATOR_PRESETS",
    "PRESETS",
    "TUNE_PRESETS",
    "Find",
    "NoisePPO",
    "Tune",
    "find",
    "generator_preset",
    "noise_ppo",
    "preset",
    "tune",
    "tune_preset",
]
