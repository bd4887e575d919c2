"""Settings of a denoiser's learning: DDPO, PG, DPOK, DPO, B²-DiffuRL."""

from __future__ import annotations

import math
from dataclasses import dataclass

from diffalign.training.config import ConfigError

#: Losses of `TuneConfig`.
OBJECTIVES = ("pg", "ppo", "dpok", "dpo")


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
