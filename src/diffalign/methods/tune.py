"""Tuning a denoiser: an objective and a strategy, as settings; `diffalign.settings.tune` has the presets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.learners.denoiser import DenoiserLearner
from diffalign.methods.provenance import provenance
from diffalign.methods.run import Run, prepare
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.rewards import RewardFunction
from diffalign.settings.tune import TuneConfig


def build(sampler: Sampler, prompts: Sequence[str], config: TuneConfig, reward: str) -> DenoiserLearner:
    """The denoiser's learner; the sampler's pipeline is changed in place.

    Raises:
        ConfigError: if there are no prompts, or the settings do not fit the sampler.
        PipelineError: if the pipeline's denoiser cannot be tuned.
    """
    metadata = provenance(sampler, reward) | {"scheduler": "DDIMScheduler"}  # which decides, whatever samples
    policy = DenoiserPolicy(
        sampler,
        eta=config.eta,
        rank=config.lora_rank,
        targets=config.lora_targets,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
    return DenoiserLearner(policy, prompts, config, metadata)


def tune(pipeline: Any, prompts: Sequence[str], reward: RewardFunction | str, **settings: Any) -> Run:
    """Prepares a tuning run on a diffusers pipeline, whose denoiser gets an adapter.

    Arguments:
        settings: as of `diffalign.methods.run.prepare` (num_steps, preset_name …), and of `TuneConfig`.

    Returns:
        An iterable of `Round`; `.run()` goes to the end and returns the `DenoiserPolicy`, whose
        `.save(folder)` writes the adapter.
    """
    return prepare("tune", pipeline, prompts, reward, **settings)
