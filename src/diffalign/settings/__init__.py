"""SETTINGS: how each method learns, samples and is measured, as frozen dataclasses with their presets.

One file a method. `--help`, YAML and Python read the same rows; nothing here needs torch.
"""
