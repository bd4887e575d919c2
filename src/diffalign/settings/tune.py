"""Tuning the denoiser: DDPO, PG, DPOK and DPO, alone or with B²-DiffuRL's strategies.

`ddpo`, `pg`, `dpok` and `dpo` visit the whole trajectory; `b2-…` is the same objective with backward
progressive training and branches, by B²'s table 6: a round is 255 pictures and one optimiser step, so that
every ratio is 1 and clipping never acts. `b2-ddpo-released` is by its released scripts, where a round is 256
groups of branches, learned from twice in several steps. All of them set the guidance of table 6.
`flow-grpo`, `dance-grpo` and `mix-grpo` are of flow matching, with the stochastic equation and settings of
each; `docs/tune.md` says in what they differ from the published code.
`default` is `b2-ddpo` with decisions weighted by their variance, fewer and smaller rounds, and a higher
learning rate; `docs/tune.md` says why.

References: Black et al. (ICLR 2024), DDPO, https://arxiv.org/abs/2305.13301
            Fan et al. (NeurIPS 2023), DPOK, https://arxiv.org/abs/2305.16381
            Hu et al. (CVPR 2025), B²-DiffuRL, https://arxiv.org/abs/2503.11240
            Liu et al. (2025), Flow-GRPO, https://arxiv.org/abs/2505.05470
            Xue et al. (2025), DanceGRPO, https://arxiv.org/abs/2505.07818
            Li et al. (2025), MixGRPO, https://arxiv.org/abs/2507.21802
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
    Share,
)
from diffalign.settings.stopping import Stopping


@dataclass(frozen=True)
class TuneConfig(Stopping):
    """How the denoiser's weights are learned.

    Attributes:
        objective: The loss: policy gradient (pg), DDPO's (ppo), DPOK's, or DPO's.
        rounds: How many rounds of sampling and learning there are.
        samples: How many pictures a round makes and scores, in whole groups of branches.
        samples_per_prompt: How many samples in a row are of one prompt, where they do not branch.
        interval: Which steps are learned: the full trajectory, backward (the last ones first, then more and
            more), or sliding (a window that moves from the noise to the picture; other steps have no noise).
        first_steps: How many steps the first round learns, if backward; each round, if sliding.
        slide_rounds: After how many rounds the window moves on by a step, if sliding.
        branches: How many samples share their steps before the interval; 1 does not branch.
        threshold: Of branches, the least advantage of the best that is learned from, and of minus the worst's
            (dpo: both). 0 learns from all.
        step_weights: How decisions weigh in the loss: equal, or by variance (decision t counts s_t², so that
            the small steps near the picture do not drown those that compose it).
        window: How many earlier rounds the rewards of a prompt are normalised with.
        spread: What a prompt's rewards, less their mean, are divided by: the standard deviation of its own
            (prompt), or of all of the round.
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
        eta: How much noise a sampler step has: of ddim, the share of DDPM's.
        sde: Where the noise comes from: ddim's share, which is of any model, or the stochastic equation of
            flow-grpo or dance-grpo, of flow matching alone.
        optimiser: What takes the steps: adamw, or adamw8bit (bitsandbytes, moments in 8 bits).
        learning_rate: The optimiser's learning rate.
        weight_decay: The optimiser's weight decay.
        max_grad_norm: The norm that a larger gradient is scaled down to.
        inner_epochs: How often a round's samples are learned from.
        update_batch: How many samples an optimiser step is made from; an epoch's last may have fewer.
        micro_batch: How many samples are in the denoiser at a time; it changes nothing but time and memory.
        gradient_checkpointing: Compute activations twice instead of keeping them: less memory, more time.
        shard: Divide the frozen denoiser among the processes, each of which then holds a part of it, where it
            does not fit on a device; start several with torchrun or accelerate launch.
        lora_rank: The rank of the adapter; 0 tunes all weights.
        lora_targets: Which layers get an adapter: attention, or all (feed-forwards and convolutions too).
        seed: The seed of everything.
    """

    objective: Literal["pg", "ppo", "dpok", "dpo"] = "ppo"
    rounds: Positive = 20
    samples: Positive = 96
    samples_per_prompt: Positive = 1
    interval: Literal["full", "backward", "sliding"] = "backward"
    first_steps: Positive = 14
    slide_rounds: Positive = 25
    branches: Positive = 3
    threshold: NotNegativeFloat = 0.5
    step_weights: Literal["equal", "variance"] = "variance"
    window: NotNegative = 8
    spread: Literal["prompt", "round"] = "prompt"
    min_count: Positive = 4
    advantage_clip: PositiveFloat = 5.0
    clip_range: Share = 1e-4
    dpok_alpha: NotNegativeFloat = 10.0
    dpok_beta: NotNegativeFloat = 0.01
    dpok_regulariser: Literal["kl", "epsilon"] = "kl"
    dpo_beta: PositiveFloat = 0.1
    dpo_clamp: Annotated[float, Bounds(at_least=0, below=1)] = 0.0
    eta: Annotated[float, Bounds(above=0, at_most=1)] = 1.0
    sde: Literal["ddim", "flow-grpo", "dance-grpo"] = "ddim"
    optimiser: Literal["adamw", "adamw8bit"] = "adamw"
    learning_rate: PositiveFloat = 3e-3
    weight_decay: NotNegativeFloat = 1e-4
    max_grad_norm: PositiveFloat = 1.0
    inner_epochs: Positive = 1
    update_batch: Positive = 96
    micro_batch: Positive = 4
    gradient_checkpointing: bool = False
    shard: bool = False
    lora_rank: NotNegative = 4
    lora_targets: Literal["attention", "all"] = "attention"
    seed: Seed = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples % self.branches:
            raise ConfigError(f"{self.samples} samples are no whole groups of {self.branches} branches")
        if self.samples % (self.branches * self.samples_per_prompt):
            raise ConfigError(
                f"{self.samples} samples are no whole groups of {self.samples_per_prompt} samples a prompt"
            )
        if self.objective == "dpo" and self.update_batch % 2:
            raise ConfigError(f"dpo learns from pairs: update_batch must be even, not {self.update_batch}")
        if self.shard and not self.lora_rank:
            raise ConfigError(
                "shard divides a denoiser that stays frozen, but lora_rank 0 tunes its own weights; tune an "
                "adapter (lora_rank above 0), or leave shard out"
            )

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
_FLOW_GRPO = TuneConfig(
    objective="dpok",  # the clipped surrogate and β times the divergence
    dpok_alpha=1.0,
    dpok_beta=0.04,  # its implementation, for GenEval
    rounds=100,  # it is stopped by hand
    samples=1152,  # its implementation: 48 groups a round
    samples_per_prompt=24,  # its implementation
    interval="full",
    branches=1,  # each sample has an initial noise of its own
    threshold=0.0,
    step_weights="equal",
    window=0,  # GRPO: a group's rewards are compared with each other
    spread="round",  # its implementation: global_std
    min_count=2,
    advantage_clip=5.0,  # its implementation
    clip_range=1e-4,  # its implementation
    eta=0.7,  # its implementation: noise_level
    sde="flow-grpo",
    learning_rate=3e-4,  # its implementation
    weight_decay=1e-4,  # its implementation
    max_grad_norm=1.0,  # its implementation
    update_batch=576,  # its implementation: two steps a round
    lora_rank=32,  # its implementation
)
_DANCE_GRPO = replace(
    _FLOW_GRPO,
    objective="ppo",  # no divergence
    rounds=300,  # its implementation for FLUX, as are all below
    samples=192,  # 16 prompts a round
    samples_per_prompt=1,
    branches=12,  # share the initial noise, where the interval starts
    spread="prompt",
    eta=0.3,
    sde="dance-grpo",
    learning_rate=1e-5,
    update_batch=64,
    lora_rank=0,
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
    "flow-grpo": _FLOW_GRPO,
    "dance-grpo": _DANCE_GRPO,
    "mix-grpo": replace(  # its implementation for FLUX
        _DANCE_GRPO,
        samples=384,  # 32 prompts a round, of 12 samples each
        interval="sliding",
        first_steps=4,  # group_size
        slide_rounds=25,  # iters_per_group
        eta=0.7,
        sde="flow-grpo",
        update_batch=96,
    ),
}
_TABLE_6: dict[str, float] = {"num_steps": 20, "guidance_scale": 5.0}
#: By the name of a preset, settings of sampling that it sets too: B² table 6 and its scripts, of all that it
#: compares (DDPO's implementation guides alike); the implementations of Flow-GRPO, DanceGRPO and MixGRPO.
SAMPLING: dict[str, dict[str, float]] = {
    **{name: _TABLE_6 for name, config in PRESETS.items() if name != "default" and config.sde == "ddim"},
    "flow-grpo": {"num_steps": 10, "guidance_scale": 4.5},
    "dance-grpo": {"num_steps": 16},
    "mix-grpo": {"num_steps": 25},
}
