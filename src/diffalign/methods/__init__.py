"""The published methods and our defaults: presets that compose the parts."""

from diffalign.methods.find import PRESETS, Find, find, preset

__all__ = ["PRESETS", "Find", "find", "preset"]
