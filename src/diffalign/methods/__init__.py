"""METHOD: the published methods and our defaults, as rows that compose the parts.

`diffalign.settings.methods` has a row's settings and presets, the modules here its learner.
"""

from diffalign.methods.anchors import anchors
from diffalign.methods.find import find
from diffalign.methods.noise_ppo import noise_ppo
from diffalign.methods.run import Run, build, prepare
from diffalign.methods.search import search
from diffalign.methods.tune import tune

__all__ = ["Run", "anchors", "build", "find", "noise_ppo", "prepare", "search", "tune"]
