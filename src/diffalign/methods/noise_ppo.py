"""Noise PPO: learn one generator of initial noise for all prompts.

The preset `paper` decides on every element of the latent, with a value head and PPO's clipped surrogate;
`default` weighs places that all prompts share, by a Gaussian process over prompts. `docs/noise-ppo.md` says
why and what was measured.

References: Miao et al. (2025), https://arxiv.org/abs/2506.12036
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffalign.diffusion import Sampler
from diffalign.diffusion.conditions import prompt_states
from diffalign.methods.origins import name_of, origin, prepared
from diffalign.methods.presets import choose
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.policies.place_generator import PlaceGenerator, PlaceShape
from diffalign.rewards import RewardFunction
from diffalign.training import ConfigError, GeneratorConfig, GeneratorLearner, GeneratorRound, train_generator
from diffalign.training.gaussian_learner import GaussianLearner
from diffalign.training.place_learner import PlaceLearner

GENERATOR_PRESETS = {
    "default": GeneratorConfig(),
    "paper": GeneratorConfig(
        components=0,
        basis="identity",  # μ_φ(c) and σ_φ(c) of every element
        std="learned",
        baseline="value",
        kl_weight=1e-3,
        learning_rate=1e-4,
    ),
}


def _named(shape: type[Any], config: GeneratorConfig) -> dict[str, Any]:
    """The settings that `shape` has too."""
    return {each.name: getattr(config, each.name) for each in fields(shape) if hasattr(config, each.name)}


def generator_preset(name: str, **changes: Any) -> GeneratorConfig:
    """The settings called `name`, with `changes`.

    Raises:
        ConfigError: if there is no such preset, or a change is out of range.
    """
    return choose(GENERATOR_PRESETS, name, changes)


class NoisePPO:
    """A run: iterate over it for `GeneratorRound` records, or `run()` it to the end.

    Arguments:
        sampler: the environment.
        prompts: what to learn from.
        reward: a callable `(images, prompts) -> (B,)`.
        config: how it learns.
        reward_name: what the artefact calls the reward; the callable's own name by default.

    Attributes:
        origin: what the result depends on beside the settings of learning, as metadata.

    Raises:
        ConfigError: if there are no prompts, or the settings do not fit the latents.
        PipelineError: if the pipeline's prompts cannot be read.
    """

    def __init__(
        self,
        sampler: Sampler,
        prompts: Sequence[str],
        reward: RewardFunction,
        config: GeneratorConfig,
        *,
        reward_name: str | None = None,
    ) -> None:
        self.sampler, self.reward = sampler, reward
        pipeline = sampler.pipeline
        if not prompts:
            raise ConfigError("learning needs at least one prompt")
        self.origin = origin(sampler, reward_name or name_of(reward))
        latent, width = sampler.latent_shape, prompt_states(pipeline, prompts[0]).shape[-1]
        model, dtype = str(getattr(pipeline.config, "_name_or_path", "")), str(pipeline.dtype).split(".")[-1]
        metadata = {"model": model, "dtype": dtype, **self.origin}

        def states(prompt: str) -> Tensor:
            return prompt_states(pipeline, prompt)

        self.learner: GeneratorLearner
        try:
            if config.components:
                places = PlaceShape(latent, width, len(prompts), **_named(PlaceShape, config))
                self.learner = PlaceLearner(
                    PlaceGenerator(places, states, metadata, seed=config.seed), prompts, config
                )
            else:
                gaussian = GaussianShape(latent, width, **_named(GaussianShape, config))
                self.learner = GaussianLearner(
                    GaussianGenerator(gaussian, states, metadata, seed=config.seed), prompts, config
                )
        except ValueError as error:
            raise ConfigError(str(error)) from error

    @property
    def generator(self) -> NoiseGenerator:
        """What has been learned so far."""
        return self.learner.generator

    def noise(self, prompt: str) -> NoiseDistribution:
        """What has been learned so far, of `prompt`'s noise."""
        with torch.no_grad():
            return self.generator(prompt)

    def __iter__(self) -> Iterator[GeneratorRound]:
        return train_generator(self.learner, self.sampler, self.reward)

    def run(self) -> NoiseGenerator:
        """Runs to the end and returns the generator."""
        for _ in self:
            pass
        return self.generator

    def save(self, path: Path | str) -> None:
        """Writes the generator as `NoiseGenerator.load` reads it."""
        self.generator.save(path)


def noise_ppo(
    pipeline: Any,
    prompts: Sequence[str],
    reward: RewardFunction | str,
    *,
    preset_name: str = "default",
    num_steps: int = 20,
    guidance_scale: float | None = None,
    batch_size: int = 16,
    **changes: Any,
) -> NoisePPO:
    """Prepares a Noise PPO run on a diffusers pipeline.

    Arguments:
        pipeline: a diffusers pipeline; it stays as it is.
        prompts: what to learn from.
        reward: a callable `(images, prompts) -> (B,)`, or a registered reward's name.
        preset_name: one of `GENERATOR_PRESETS`.
        num_steps, guidance_scale, batch_size: of sampling.
        changes: settings of `GeneratorConfig` to change.

    Returns:
        An iterable of `GeneratorRound`; `.run()` goes to the end and returns the `NoiseGenerator`.
    """
    sampler, function, name = prepared(pipeline, reward, num_steps, guidance_scale, batch_size=batch_size)
    return NoisePPO(sampler, prompts, function, generator_preset(preset_name, **changes), reward_name=name)
