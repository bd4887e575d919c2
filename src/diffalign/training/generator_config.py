"""Settings of a generator of initial noise for many prompts: Noise PPO."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from diffalign.training.config import ConfigError, check_basis


@dataclass(frozen=True)
class GeneratorConfig:
    """How one noise generator learns for all prompts; the defaults are those of the preset "default".

    Attributes:
        rounds: of sampling and learning.
        prompts_per_round: in turn.
        samples_per_prompt: pictures a prompt and round.
        components: K for a mixture around K places that all prompts share, whose values a Gaussian process
            learns; 0 for one Gaussian a prompt, which PPO learns.
        correlation: of a mixture's samples with their place.
        effective: places that a prompt's noise is drawn from in the end, exp of its weights' entropy.
        explore: the same while learning, as a share of all places.
        basis: where a Gaussian is learned: identity (every element) or dctK (K×K lowest frequencies).
        std: of a Gaussian: learned, or preserving (s² = 1 − m², so that second moments stay 1).
        baseline: of a sample's reward, in PPO: leave-one-out (the other samples of its prompt and round),
            value (a network's guess from the prompt), or running (the prompt's mean over the last 8 rounds).
        epochs: passes over a round's samples.
        minibatch: prompts an optimiser step is made from.
        clip_range: ε of PPO, on the ratio of whole decisions.
        kl_weight: of KL(π ‖ N(0, I)), in nats.
        learning_rate: of Adam.
        max_grad_norm: the gradient is scaled down to it.
        width, layers, heads, patch: of a Gaussian's network.
        seed: of everything.
    """

    rounds: int = 40
    prompts_per_round: int = 24
    samples_per_prompt: int = 8
    components: int = 96
    correlation: float = 0.99
    effective: float = 4.0
    explore: float = 0.5
    basis: str = "identity"
    std: str = "learned"
    baseline: str = "value"
    epochs: int = 2
    minibatch: int = 8
    clip_range: float = 0.2
    kl_weight: float = 1e-3
    learning_rate: float = 1e-4
    max_grad_norm: float = 1.0
    width: int = 64
    layers: int = 2
    heads: int = 4
    patch: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = {"std": ("learned", "preserving"), "baseline": ("leave-one-out", "value", "running")}
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        positive = (
            "rounds",
            "prompts_per_round",
            "samples_per_prompt",
            "epochs",
            "minibatch",
            "learning_rate",
        )
        for name in (*positive, "max_grad_norm", "width", "layers", "heads", "patch"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive and finite, not {getattr(self, name)}")
        if not 0 < self.clip_range < 1:
            raise ConfigError(f"clip_range must be between 0 and 1, not {self.clip_range}")
        if self.components < 0 or self.components == 1:
            raise ConfigError(f"components must be 0 (one Gaussian) or at least 2, not {self.components}")
        if not 0 < self.correlation < 1:
            raise ConfigError(f"correlation must lie between 0 and 1, not at {self.correlation}")
        if self.components and not 1 <= self.effective < self.components:
            raise ConfigError(
                f"effective must be at least 1 and below components, {self.components}, "
                f"not {self.effective}: else all places weigh the same"
            )
        if self.components and not self.effective / self.components <= self.explore <= 1:
            raise ConfigError(
                f"explore is a share of the places, at least effective / components, not {self.explore}"
            )
        if self.components and (told := _changed(self, PPO)):
            raise ConfigError(f"{', '.join(told)}: only one Gaussian learns by PPO; components must be 0")
        if not self.components and (told := _changed(self, PLACES)):
            raise ConfigError(f"{', '.join(told)}: of a mixture; components must not be 0")
        if not 0 <= self.kl_weight < math.inf:
            raise ConfigError(f"kl_weight must be finite and not negative, not {self.kl_weight}")
        if self.width % self.heads:
            raise ConfigError(f"a width of {self.width} does not split into {self.heads} heads")
        if self.baseline == "leave-one-out" and self.samples_per_prompt < 2:
            raise ConfigError(
                "baseline leave-one-out compares samples of a prompt: samples_per_prompt must be above 1"
            )
        check_basis(self.basis)
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, not {self.seed}")


#: Settings of `GeneratorConfig` that mean nothing to one Gaussian, and to a mixture.
PLACES = ("correlation", "effective", "explore")
PPO = (
    *("basis", "std", "baseline", "epochs", "minibatch", "clip_range", "kl_weight", "learning_rate"),
    *("max_grad_norm", "width", "layers", "heads", "patch"),
)


def _changed(config: Any, names: Sequence[str]) -> list[str]:
    """Those of `names` that are not what they are by default."""
    own = {field.name: field.default for field in fields(config)}
    return [name for name in names if getattr(config, name) != own[name]]
