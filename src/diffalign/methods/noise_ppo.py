"""Noise PPO: learn one Gaussian generator of initial noise for all prompts.

References: Miao et al. (2025), https://arxiv.org/abs/2506.12036
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.diffusion.conditions import prompt_states
from diffalign.learners.noise_ppo import NoisePPOLearner
from diffalign.methods.provenance import provenance
from diffalign.methods.run import Run, prepare
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.rewards import RewardFunction
from diffalign.settings.fields import ConfigError
from diffalign.settings.noise_ppo import NoisePPOConfig


def build(sampler: Sampler, prompts: Sequence[str], config: NoisePPOConfig, reward: str) -> NoisePPOLearner:
    """Noise PPO's learner.

    Raises:
        ConfigError: if there are no prompts, or the settings do not fit the latents.
        PipelineError: if the pipeline's prompts cannot be read.
    """
    generator = make_generator(sampler, prompts, config, provenance(sampler, reward))
    return NoisePPOLearner(sampler, prompts, config, generator)


def make_generator(
    sampler: Sampler, prompts: Sequence[str], config: NoisePPOConfig, metadata: dict[str, str]
) -> GaussianGenerator:
    """A generator that starts as N(0, I), of the shape that latents, prompts and settings give it.

    Raises:
        ConfigError: if there are no prompts, or the settings do not fit the latents.
    """
    if not prompts:
        raise ConfigError("learning needs at least one prompt")
    pipeline = sampler.pipeline
    try:
        shape = GaussianShape(
            sampler.latent_shape,
            prompt_states(pipeline, prompts[0]).shape[-1],
            basis=config.basis,
            std=config.std,
            patch=config.patch,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
        )
        return GaussianGenerator(
            shape, lambda prompt: prompt_states(pipeline, prompt), metadata, seed=config.seed
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def noise_ppo(pipeline: Any, prompts: Sequence[str], reward: RewardFunction | str, **settings: Any) -> Run:
    """Prepares a Noise PPO run on a diffusers pipeline, which stays as it is.

    Arguments:
        settings: as of `diffalign.methods.run.prepare` (num_steps, preset_name …), and of `NoisePPOConfig`.

    Returns:
        An iterable of `Round`; `.run()` goes to the end and returns the `NoiseGenerator`.
    """
    return prepare("noise-ppo", pipeline, prompts, reward, **settings)
