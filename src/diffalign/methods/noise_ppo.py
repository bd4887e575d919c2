"""Noise PPO: learn one generator of initial noise for all prompts.

The preset `paper` decides on every element of the latent, with a value head and PPO's clipped surrogate;
`default` weighs places that all prompts share. `docs/noise-ppo.md` says why and what was measured.

References: Miao et al. (2025), https://arxiv.org/abs/2506.12036
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.diffusion.conditions import prompt_states
from diffalign.methods.common import choose, name_of, origin, prepared
from diffalign.policies.generator import GeneratorShape, NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction
from diffalign.training import ConfigError, GeneratorConfig, GeneratorLearner, GeneratorRound, train_generator

GENERATOR_PRESETS = {
    "default": GeneratorConfig(),
    "paper": replace(
        GeneratorConfig(),
        basis="identity",  # μ_φ(c) and σ_φ(c) of every element
        std="learned",
        components=0,
        baseline="value",
        kl_weight=1e-3,
        learning_rate=1e-4,
    ),
}


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
        shape = GeneratorShape(
            sampler.latent_shape,
            prompt_states(pipeline, prompts[0]).shape[-1],
            basis=config.basis,
            std=config.std,
            components=config.components,
            correlation=config.correlation,
            patch=config.patch,
            width=config.width,
            layers=config.layers,
            heads=config.heads,
        )
        self.origin = origin(sampler, reward_name or name_of(reward))
        try:
            generator = NoiseGenerator(
                shape,
                lambda prompt: prompt_states(pipeline, prompt),
                {"model": str(getattr(pipeline.config, "_name_or_path", "")), **self.origin},
                seed=config.seed,
            )
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.learner = GeneratorLearner(generator, prompts, config)

    @property
    def generator(self) -> NoiseGenerator:
        """What has been learned so far."""
        return self.learner.generator

    def noise(self, prompt: str) -> NoiseDistribution:
        """What has been learned so far, of `prompt`'s noise."""
        return self.learner.distribution(prompt)

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
