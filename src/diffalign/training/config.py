"""Settings of the learner, without torch: the command line's `--help` reads them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

#: Calibrations of a batch's rewards, beside FIND's value network "drcm" and "none".
ADVANTAGES = ("rank", "leave-one-out", "standardise")


#: Losses of `TuneConfig`.
OBJECTIVES = ("pg", "ppo", "dpok", "dpo")


class ConfigError(ValueError):
    """A setting is out of its range; the message says what is allowed."""


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


@dataclass(frozen=True)
class TuneConfig:
    """How a denoiser learns; the defaults are those of the preset "default".

    Attributes:
        objective: pg, ppo, dpok or dpo.
        rounds: of sampling and learning.
        samples: pictures a round, each one reward query; whole groups of branches.
        interval: the steps that are learned: full, or backward (the last ones first).
        first_steps: of the first round's interval, if backward.
        branches: samples that share their steps before the interval; 1 does not branch.
        threshold: of branches, learn from the best if its advantage is at least this and from the worst
            if it is at most minus this (dpo: from the pair, if both are). 0 with 1 branch learns from all.
        step_weights: of the decisions in the loss: equal, or variance (decision t counts s_t², so that
            the small steps near the picture do not drown those that compose it).
        window: rounds before the current one whose rewards normalise a prompt's.
        advantage_clip: greatest size of an advantage.
        clip_range: ε of ppo and dpok.
        dpok_alpha: weight of dpok's clipped surrogate.
        dpok_beta: weight of dpok's divergence from the pretrained model.
        dpo_beta: β of dpo.
        eta: share of DDPM's noise in a sampler step.
        optimiser: adamw, or adamw8bit (moments in 8 bits, by bitsandbytes).
        learning_rate: of the optimiser.
        weight_decay: of the optimiser.
        max_grad_norm: the gradient is scaled down to it.
        update_batch: samples an optimiser step is made from; the last of a round may have fewer.
        micro_batch: samples in the denoiser at a time; it changes nothing but time and memory.
        gradient_checkpointing: compute activations twice instead of keeping them: less memory, more time.
        lora_rank: of the adapter; 0 tunes all weights.
        lora_targets: which layers get an adapter: attention, or all (its projections, feed-forwards and
            convolutions too).
        seed: of everything.
    """

    objective: str = "ppo"
    rounds: int = 20
    samples: int = 96
    interval: str = "backward"
    first_steps: int = 14
    branches: int = 3
    threshold: float = 0.5
    step_weights: str = "variance"
    window: int = 8
    advantage_clip: float = 5.0
    clip_range: float = 1e-4
    dpok_alpha: float = 10.0
    dpok_beta: float = 0.01
    dpo_beta: float = 0.1
    eta: float = 1.0
    optimiser: str = "adamw"
    learning_rate: float = 3e-3
    weight_decay: float = 1e-4
    max_grad_norm: float = 1.0
    update_batch: int = 96
    micro_batch: int = 4
    gradient_checkpointing: bool = False
    lora_rank: int = 4
    lora_targets: str = "attention"
    seed: int = 0

    def __post_init__(self) -> None:
        allowed: dict[str, tuple[str, ...]] = {"objective": OBJECTIVES, "interval": ("full", "backward")}
        allowed |= {"optimiser": ("adamw", "adamw8bit"), "lora_targets": ("attention", "all")}
        allowed["step_weights"] = ("equal", "variance")
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ConfigError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        positive = ("rounds", "samples", "first_steps", "branches", "advantage_clip", "eta", "learning_rate")
        for name in (*positive, "max_grad_norm", "update_batch", "micro_batch", "dpo_beta"):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be positive and finite, not {getattr(self, name)}")
        for name in ("threshold", "window", "dpok_alpha", "dpok_beta", "weight_decay", "lora_rank"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} must be finite and not negative, not {getattr(self, name)}")
        if not 0 < self.clip_range < 1:
            raise ConfigError(f"clip_range must be between 0 and 1, not {self.clip_range}")
        if self.eta > 1:
            raise ConfigError(f"eta is at most 1, DDPM's noise, not {self.eta}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, not {self.seed}")
        if self.samples % self.branches:
            raise ConfigError(f"{self.samples} samples are no whole groups of {self.branches} branches")
        if self.objective == "dpo" and self.update_batch % 2:
            raise ConfigError(f"dpo learns from pairs: update_batch must be even, not {self.update_batch}")


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


def check_basis(name: str) -> None:
    """Checks the name of a basis.

    Raises:
        ConfigError: if there is no such basis.
    """
    if not re.fullmatch(r"identity|dct[1-9]\d*", name):
        raise ConfigError(f"basis must be identity, or dctK for the K×K lowest frequencies, not {name!r}")
