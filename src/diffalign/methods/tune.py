"""Tuning a denoiser: an objective and a strategy, as presets.

`ddpo`, `pg`, `dpok` and `dpo` visit the whole trajectory; `b2-…` is the same objective with backward
progressive training and branches. Guidance is the sampler's (B² table 6: 5.0). `default` is `b2-ddpo`
with decisions weighted by their variance, fewer and smaller rounds, and a higher learning rate;
`docs/tune.md` says why.

References: Black et al. (ICLR 2024), DDPO, https://arxiv.org/abs/2305.13301
            Fan et al. (NeurIPS 2023), DPOK, https://arxiv.org/abs/2305.16381
            Hu et al. (CVPR 2025), B²-DiffuRL, https://arxiv.org/abs/2503.11240
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.methods.origins import name_of, origin, prepared
from diffalign.methods.presets import choose
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.rewards import RewardFunction
from diffalign.training import Round, TuneConfig, Tuner
from diffalign.training import tune as rounds_of

_B2 = TuneConfig(
    rounds=100,  # B² section 5.1: 25.6k reward queries
    samples=255,  # B² table 6: 8 × 32 a round, in whole groups of branches
    interval="backward",
    first_steps=14,  # the released configuration: n_0 = 14 of T = 20
    branches=3,  # B² table 6
    threshold=0.5,  # B² table 6
    step_weights="equal",  # DDPO, eq. 7: the sum over steps
    window=8,  # B² section 5.1
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
    interval="full",
    branches=1,
    threshold=0.0,
    update_batch=64,  # B² table 6: batch 2 × accumulation 32
)
TUNE_PRESETS = {
    "default": TuneConfig(),
    "ddpo": replace(_VANILLA, objective="ppo"),
    "pg": replace(_VANILLA, objective="pg"),
    "dpok": replace(_VANILLA, objective="dpok", dpok_alpha=10.0, dpok_beta=0.01),  # DPOK, appendix
    "dpo": replace(_VANILLA, objective="dpo"),
    "b2-ddpo": replace(_B2, objective="ppo"),
    "b2-pg": replace(_B2, objective="pg"),
    "b2-dpok": replace(_B2, objective="dpok", dpok_alpha=10.0, dpok_beta=0.01),
    "b2-dpo": replace(_B2, objective="dpo"),
}


def tune_preset(name: str, **changes: Any) -> TuneConfig:
    """The settings called `name`, with `changes`.

    Raises:
        ConfigError: if there is no such preset, or a change is out of range.
    """
    return choose(TUNE_PRESETS, name, changes)


class Tune:
    """A tuning run: iterate over it for `Round` records, or `run()` it to the end.

    Arguments:
        sampler: the pipeline and how it samples; its denoiser is changed in place.
        prompts: what to train on.
        reward: a callable `(images, prompts) -> (B,)`.
        config: how it learns.
        reward_name: what the artefact calls the reward; the callable's own name by default.

    Attributes:
        origin: what the result depends on beside the settings of learning, as metadata.

    Raises:
        ConfigError: if there are no prompts, or the settings do not fit the sampler.
        PipelineError: if the pipeline's denoiser cannot be tuned.
    """

    def __init__(
        self,
        sampler: Sampler,
        prompts: Sequence[str],
        reward: RewardFunction,
        config: TuneConfig,
        *,
        reward_name: str | None = None,
    ) -> None:
        self.sampler, self.reward = sampler, reward
        self.origin = origin(sampler, reward_name or name_of(reward)) | {"scheduler": "DDIMScheduler"}
        policy = DenoiserPolicy(
            sampler,
            eta=config.eta,
            rank=config.lora_rank,
            targets=config.lora_targets,
            gradient_checkpointing=config.gradient_checkpointing,
            seed=config.seed,
        )
        self.tuner = Tuner(policy, prompts, config)

    def __iter__(self) -> Iterator[Round]:
        return rounds_of(self.tuner, self.reward)

    def run(self) -> Tune:
        """Runs to the end; the pipeline then samples with what was learned."""
        for _ in self:
            pass
        return self

    def save(self, folder: Path | str) -> None:
        """Writes the adapter as `pipeline.load_lora_weights(folder)` reads it, or all weights."""
        self.tuner.policy.save(Path(folder))


def tune(
    pipeline: Any,
    prompts: Sequence[str],
    reward: RewardFunction | str,
    *,
    preset_name: str = "default",
    num_steps: int = 20,
    guidance_scale: float | None = None,
    batch_size: int = 16,
    **changes: Any,
) -> Tune:
    """Prepares a tuning run on a diffusers pipeline.

    Arguments:
        pipeline: a diffusers pipeline; its denoiser gets an adapter.
        prompts: what to train on.
        reward: a callable `(images, prompts) -> (B,)`, or a registered reward's name.
        preset_name: one of `TUNE_PRESETS`.
        num_steps, guidance_scale, batch_size: of sampling.
        changes: settings of `TuneConfig` to change.

    Returns:
        An iterable of `Round`; `.run()` goes to the end, `.save(folder)` writes the adapter.
    """
    sampler, function, name = prepared(pipeline, reward, num_steps, guidance_scale, batch_size=batch_size)
    return Tune(sampler, prompts, function, tune_preset(preset_name, **changes), reward_name=name)
