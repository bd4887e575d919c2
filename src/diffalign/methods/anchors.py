"""Anchors: learn which of a set of fixed noises suits which prompt, for all prompts at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.diffusion.conditions import prompt_states
from diffalign.learners.anchors import AnchorLearner
from diffalign.methods.provenance import provenance
from diffalign.methods.run import Run, prepare
from diffalign.policies.anchor_generator import AnchorGenerator, AnchorShape
from diffalign.rewards import RewardFunction
from diffalign.settings.anchors import AnchorConfig
from diffalign.settings.fields import ConfigError


def build(sampler: Sampler, prompts: Sequence[str], config: AnchorConfig, reward: str) -> AnchorLearner:
    """The learner of anchors.

    Raises:
        ConfigError: if there are no prompts, or too few samples of them.
        PipelineError: if the pipeline's prompts cannot be read.
    """
    if not prompts:
        raise ConfigError("learning needs at least one prompt")
    pipeline = sampler.pipeline
    shape = AnchorShape(
        sampler.latent_shape,
        prompt_states(pipeline, prompts[0]).shape[-1],
        len(prompts),
        components=config.components,
        correlation=config.correlation,
        effective=config.effective,
    )
    generator = AnchorGenerator(
        shape,
        lambda prompt: prompt_states(pipeline, prompt),
        provenance(sampler, reward),
        seed=config.seed,
    )
    return AnchorLearner(sampler, prompts, config, generator)


def anchors(pipeline: Any, prompts: Sequence[str], reward: RewardFunction | str, **settings: Any) -> Run:
    """Prepares a run that weighs anchors, on a diffusers pipeline, which stays as it is.

    Arguments:
        settings: as of `diffalign.methods.run.prepare` (num_steps, preset_name …), and of `AnchorConfig`.

    Returns:
        An iterable of `Round`; `.run()` goes to the end and returns the `NoiseGenerator`.
    """
    return prepare("anchors", pipeline, prompts, reward, **settings)
