"""Tuning the denoiser: DDPO, PG, DPOK and DPO, alone or with B²-DiffuRL's strategies.

`ddpo`, `pg`, `dpok` and `dpo` visit the whole trajectory; `b2-…` is the same objective with backward
progressive training and branches, by B²'s table 6: a round is 255 pictures and one optimiser step, so that
every ratio is 1 and clipping never acts. `b2-ddpo-released` is by its released scripts, where a round is 256
groups of branches, learned from twice in several steps. All of them set the guidance of table 6.
`default` is `b2-ddpo` with decisions weighted by their variance, fewer and smaller rounds, and a higher
learning rate; `docs/tune.md` says why.

References: Black et al. (ICLR 2024), DDPO, https://arxiv.org/abs/2305.13301
            Fan et al. (NeurIPS 2023), DPOK, https://arxiv.org/abs/2305.16381
            Hu et al. (CVPR 2025), B²-DiffuRL, https://arxiv.org/abs/2503.11240
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

from diffalign.settings.fields import (
    Bounds,
    ConfigError,
    NotNegative,
    NotNegativeFloat,
    Positive,
    PositiveFloat,
    Seed,
    Settings,
    Share,
)


@dataclass(frozen=True)
class TuneConfig(Settings):
    """How the denoiser's weights are learned.

    Attributes:
        objective: The loss: policy gradient (pg), DDPO's (ppo), DPOK's, or DPO's.
        rounds: How many rounds of sampling and learning there are.
        samples: How many pictures a round makes and scores, in whole groups of branches.
        interval: Which steps are learned: the full trajectory, or backward, the last ones first.
        first_steps: How many steps the first round learns, if backward.
        branches: How many samples share their steps before the interval; 1 does not branch.
        threshold: Of branches, the least advantage of the best that is learned from, and of minus the worst's
            (dpo: both). 0 with 1 branch learns from all.
        step_weights: How decisions weigh in the loss: equal, or by variance (decision t counts s_t², so that
            the small steps near the picture do not drown those that compose it).
        window: How many earlier rounds the rewards of a prompt are normalised with.
        min_count: From how many rewards of a prompt on, in these rounds, it is normalised with its own; until
            then with all of the round.
        advantage_clip: The greatest size of an advantage.
        clip_range: The range ε of ppo and dpok, which acts from a round's second optimiser step on: in its
            first every ratio is 1.
        dpok_alpha: The weight of dpok's clipped surrogate.
        dpok_beta: The weight of dpok's divergence from the pretrained model.
        dpok_regulariser: What that divergence is: kl, of the decisions (the paper), or epsilon, the squared
            difference of predicted noise (the published code).
        dpo_beta: The β of dpo.
        dpo_clamp: How far from 1 dpo's ratios may be, beyond which a pair teaches nothing more (0.1 in D3PO's
            published code); 0 does not clamp.
        eta: The share of DDPM's noise in a sampler step.
        optimiser: What takes the steps: adamw, or adamw8bit (bitsandbytes, moments in 8 bits).
        learning_rate: The optimiser's learning rate.
        weight_decay: The optimiser's weight decay.
        max_grad_norm: The norm that a larger gradient is scaled down to.
        inner_epochs: How often a round's samples are learned from.
        update_batch: How many samples an optimiser step is made from; an epoch's last may have fewer.
        micro_batch: How many samples are in the denoiser at a time; it changes nothing but time and memory.
        gradient_checkpointing: Compute activations twice instead of keeping them: less memory, more time.
        lora_rank: The rank of the adapter; 0 tunes all weights.
        lora_targets: Which layers get an adapter: attention, or all (feed-forwards and convolutions too).
        seed: The seed of everything.
    """

    objective: Literal["pg", "ppo", "dpok", "dpo"] = "ppo"
    rounds: Positive = 20
    samples: Positive = 96
    interval: Literal["full", "backward"] = "backward"
    first_steps: Positive = 14
    branches: Positive = 3
    threshold: NotNegativeFloat = 0.5
    step_weights: Literal["equal", "variance"] = "variance"
    window: NotNegative = 8
    min_count: Positive = 4
    advantage_clip: PositiveFloat = 5.0
    clip_range: Share = 1e-4
    dpok_alpha: NotNegativeFloat = 10.0
    dpok_beta: NotNegativeFloat = 0.01
    dpok_regulariser: Literal["kl", "epsilon"] = "kl"
    dpo_beta: PositiveFloat = 0.1
    dpo_clamp: Annotated[float, Bounds(at_least=0, below=1)] = 0.0
    eta: Annotated[float, Bounds(above=0, at_most=1)] = 1.0
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NotNegativeFloat = 1e-4
    max_grad_norm: PositiveFloat = 1.0
    inner_epochs: Positive = 1
    update_batch: Positive = 96
    micro_batch: Positive = 4
    gradient_checkpointing: bool = False
    lora_rank: NotNegative = 4
    lora_targets: Literal["attention", "all"] = "attention"
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples % self.branches:
            raise ConfigError(f"{self.samples} samples are no whole groups of {self.branches} branches")
        if self.objective == "dpo" and self.update_batch % 2:
            raise ConfigError(f"dpo learns from pairs: update_batch must be even, not {self.update_batch}")

    @property
    def queries(self) -> int:
        """Reward queries in all."""
        return self.rounds * self.samples


_B2 = TuneConfig(
    rounds=100,  # B² section 5.1: 25.6k reward queries
    samples=255,  # B² table 6: 8 × 32 a round, in whole groups of branches
    interval="backward",
    first_steps=14,  # the released configuration: n_0 = 14 of T = 20
    branches=3,  # B² table 6
    threshold=0.5,  # B² table 6
    step_weights="equal",  # DDPO, eq. 7: the sum over steps
    window=8,  # B² section 5.1
    min_count=2,  # a prompt's first reward has nothing to be compared with; B² says nothing of it
    advantage_clip=5.0,  # DDPO's implementation
    clip_range=1e-4,  # DDPO's implementation
    dpo_beta=0.1,  # D3PO's implementation
    eta=1.0,  # B² table 6: noise weight
    learning_rate=1e-4,  # B² table 6
    weight_decay=1e-4,  # B² table 6
    max_grad_norm=1.0,  # DDPO's implementation
    update_batch=256,  # B² table 6: batch 2 × accumulation 128
    lora_rank=4,  # DDPO's implementation
)
_VANILLA = replace(
    _B2,
    samples=256,  # B² table 6: 8 × 32 a round
    min_count=16,  # DDPO's implementation
    interval="full",
    branches=1,
    threshold=0.0,
    update_batch=64,  # B² table 6: batch 2 × accumulation 32
)
PRESETS = {
    "default": TuneConfig(),
    "ddpo": replace(_VANILLA, objective="ppo"),
    "pg": replace(_VANILLA, objective="pg"),
    "dpok": replace(_VANILLA, objective="dpok", dpok_alpha=10.0, dpok_beta=0.01),  # DPOK, appendix
    "dpo": replace(_VANILLA, objective="dpo"),
    "b2-ddpo": replace(_B2, objective="ppo"),
    "b2-ddpo-released": replace(  # by its scripts; table 6 has 3 branches, and batches twice as large
        _B2,
        objective="ppo",
        samples=1280,  # 8 × 32 groups a round
        branches=5,
        inner_epochs=2,
        update_batch=128,  # batch 2 × accumulation 64
        clip_range=0.1,
    ),
    "b2-pg": replace(_B2, objective="pg"),
    "b2-dpok": replace(_B2, objective="dpok", dpok_alpha=10.0, dpok_beta=0.01),
    "b2-dpo": replace(_B2, objective="dpo"),
}
#: By the name of a preset, settings of sampling that it sets too: B² table 6 and its scripts, of all that it
#: compares; DDPO's implementation guides alike.
SAMPLING = {name: {"num_steps": 20, "guidance_scale": 5.0} for name in PRESETS if name != "default"}
