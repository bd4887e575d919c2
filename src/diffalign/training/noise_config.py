"""Settings of one prompt's initial noise: FIND."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffalign.training.config import ConfigError, check_basis

#: Calibrations of a batch's rewards, beside FIND's value network "drcm" and "none".
ADVANTAGES = ("rank", "leave-one-out", "standardise")


@dataclass(frozen=True)
class NoiseConfig:
    """How an initial-noise policy learns.

    Attributes:
        queries: reward queries in all.
        batch: samples an update is made from (FIND: 1).
        basis: where the noise is learned: identity (every element) or dctK (K×K lowest frequencies).
        components: 0 for one Gaussian; K for a mixture around the first K samples, which are at most
            two fifths of the queries.
        correlation: of a mixture's samples with their component's centre.
        std: of one Gaussian: learned, or preserving (s² = 1 − m², so that second moments stay 1).
        advantage: drcm (FIND's value network), rank, leave-one-out, standardise, or none.
        clip_range: ε of ratio clipping (RCA); 0 does not clip.
        optimiser: adamw (FIND) or natural (natural gradient).
        learning_rate: of the optimiser.
        value_learning_rate: of DRCM's network.
        value_updates: updates of DRCM's network an iteration.
        history: whether an update reads all samples so far (FIND) or its own batch alone.
        antithetic: whether samples come in pairs of ε and −ε.
        start: a noise generator's file or run, whose noise a mixture's first samples are; N(0, I) if empty.
        seed: of everything.
    """

    queries: int = 150
    batch: int = 15
    basis: str = "identity"
    components: int = 60
    correlation: float = 0.99
    std: str = "preserving"
    advantage: str = "standardise"
    clip_range: float = 0.0
    optimiser: str = "natural"
    learning_rate: float = 0.75
    value_learning_rate: float = 1e-3
    value_updates: int = 10
    history: bool = False
    antithetic: bool = False
    start: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {
            "std": ("learned", "preserving"),
            "advantage": ("drcm", *ADVANTAGES, "none"),
            "optimiser": ("adamw", "natural"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        for name in ("queries", "batch", "learning_rate", "value_learning_rate", "value_updates"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive and finite, not {getattr(self, name)}")
        if self.std == "preserving" and self.optimiser != "natural":
            raise ConfigError("std preserving keeps |m| below 1, which optimiser natural alone sees to")
        if not 0 < self.correlation < 1:
            raise ConfigError(f"correlation must lie between 0 and 1, not at {self.correlation}")
        if self.components < 0 or self.components == 1:
            raise ConfigError(f"components must be 0 (one Gaussian) or at least 2, not {self.components}")
        if self.components and (self.optimiser != "natural" or self.antithetic or self.std != "preserving"):
            raise ConfigError(
                "a mixture knows optimiser natural, std preserving and no antithetic samples; "
                "components 0 learns one Gaussian"
            )
        if self.components and self.queries < 5:
            raise ConfigError(
                f"a mixture needs at least 5 queries, not {self.queries}; components 0 learns one Gaussian"
            )
        if self.components and self.advantage == "drcm":
            raise ConfigError("advantage drcm reads the mean and std of one Gaussian: components must be 0")
        if self.start and not self.components:
            raise ConfigError("start draws a mixture's first samples: components must not be 0")
        if self.history and self.optimiser == "natural":
            raise ConfigError("optimiser natural reads its own batch alone; leave history out")
        check_basis(self.basis)
        if not 0 <= self.clip_range < 1:
            raise ConfigError(f"clip_range must be in [0, 1), not {self.clip_range}; 0 does not clip")
        if self.batch == 1 and self.advantage in ADVANTAGES and not self.history:
            raise ConfigError(f"advantage {self.advantage!r} compares samples, so batch must be above 1")

    @property
    def first(self) -> int:
        """Samples of the first update: a mixture's components, such that enough queries are left to tell
        them apart."""
        return min(self.components, 2 * self.queries // 5) if self.components else self.batch
