"""FIND: learn the distribution of one prompt's initial noise.

The preset `paper` is Chen et al. (ACM MM 2024): μ and σ of every element, one sample an update,
DRCM, RCA with ε = 0.02, AdamW with learning rate 1e-3, 150 updates. The preset `default` learns the
weights of a mixture around the first samples; `docs/find.md` says why and what else was tried.

References: Chen et al. (ACM MM 2024), https://arxiv.org/abs/2407.19453
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from diffalign.diffusion import Sampler
from diffalign.methods.origins import name_of, origin, prepared
from diffalign.methods.presets import choose
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction
from diffalign.training import ConfigError, NoiseConfig, NoiseLearner, Step, train

PRESETS = {
    "default": NoiseConfig(),
    "paper": NoiseConfig(
        queries=150,  # section 4.1: 150 iterations of N = 1 sample
        batch=1,  # eq. 10: N = 1
        basis="identity",  # eq. 6
        components=0,  # eq. 6: one Gaussian
        std="learned",  # eq. 6
        advantage="drcm",  # eqs. 9–10
        clip_range=0.02,  # section 4.1: ε
        optimiser="adamw",  # section 4.1
        learning_rate=1e-3,  # section 4.1
        history=True,  # eq. 12: importance sampling over historical samples
        antithetic=False,
    ),
}


def preset(name: str, **changes: Any) -> NoiseConfig:
    """The settings called `name`, with `changes`.

    Raises:
        ConfigError: if there is no such preset, or a change is out of range.
    """
    return choose(PRESETS, name, changes)


class Find:
    """A FIND run: iterate over it for `Step` records, or `run()` it to the end.

    Arguments:
        sampler: the environment.
        prompt: what the pictures should show.
        reward: a callable `(images, prompts) -> (B,)`.
        config: how it learns.
        reward_name: what the artefact calls the reward; the callable's own name by default.

    Attributes:
        origin: what the result depends on beside the settings of learning, as metadata: the model's
            fingerprint, prompt, scheduler, steps, guidance, reward and seed.

    Raises:
        ArtifactError: if `config.start` is no noise generator.
        ConfigError: if the prompt is empty.
        PipelineError: if the pipeline has no denoiser.
    """

    def __init__(
        self,
        sampler: Sampler,
        prompt: str,
        reward: RewardFunction,
        config: NoiseConfig,
        *,
        reward_name: str | None = None,
    ) -> None:
        if not prompt.strip():
            raise ConfigError("the prompt is empty")
        self.sampler, self.prompt, self.reward = sampler, prompt, reward
        start = NoiseGenerator.load(config.start, sampler.pipeline) if config.start else None
        with torch.no_grad():
            noise = None if start is None else start.start(prompt, config.first)
        self.learner = NoiseLearner(sampler.latent_shape, config, noise)
        self.origin = {
            **origin(sampler, reward_name or name_of(reward)),
            "prompt": prompt,
            "seed": str(config.seed),
            **({} if start is None else {"start": start.fingerprint()}),
        }

    def __iter__(self) -> Iterator[Step]:
        return train(self.learner, self.sampler, self.prompt, self.reward, batch_size=self.sampler.batch_size)

    def run(self) -> NoiseDistribution:
        """Runs to the end and returns the learned distribution."""
        for _ in self:
            pass
        return self.distribution

    @property
    def distribution(self) -> NoiseDistribution:
        """What has been learned so far, with its provenance as metadata."""
        model = str(getattr(self.sampler.pipeline.config, "_name_or_path", ""))
        metadata = {"model": model, **self.origin, "queries": str(self.learner.queries)}
        return replace(self.learner.distribution(), metadata=metadata)


def find(
    pipeline: Any,
    prompt: str,
    reward: RewardFunction | str,
    *,
    preset_name: str = "default",
    num_steps: int = 20,
    guidance_scale: float | None = None,
    batch_size: int = 16,
    call: dict[str, Any] | None = None,
    **changes: Any,
) -> Find:
    """Prepares a FIND run on any diffusers pipeline that takes `latents=`.

    Arguments:
        pipeline: a diffusers pipeline; it stays as it is.
        prompt: what the pictures should show.
        reward: a callable `(images, prompts) -> (B,)`, or a registered reward's name.
        preset_name: "default" or "paper".
        num_steps, guidance_scale, batch_size: of sampling.
        call: further arguments of the pipeline's call.
        changes: settings of `NoiseConfig` to change.

    Returns:
        An iterable of `Step`; `.run()` goes to the end and returns the `NoiseDistribution`.
    """
    sampler, function, name = prepared(
        pipeline, reward, num_steps, guidance_scale, batch_size=batch_size, **(call or {})
    )
    return Find(sampler, prompt, function, preset(preset_name, **changes), reward_name=name)
