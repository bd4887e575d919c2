"""The published methods and our defaults: presets that compose the parts."""

from diffalign.methods.find import PRESETS, Find, find, preset
from diffalign.methods.tune import TUNE_PRESETS, Tune, tune, tune_preset

__all__ = ["PRESETS", "TUNE_PRESETS", "Find", "Tune", "find", "preset", "tune", "tune_preset"]
