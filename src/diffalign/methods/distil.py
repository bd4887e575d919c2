"""A generator distilled from what FIND learned, without a reward query."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.files import NOISE, ArtifactError
from diffalign.learners.amortised import make_generator
from diffalign.learners.distil import distil as fit
from diffalign.methods.provenance import provenance
from diffalign.methods.run import opened
from diffalign.policies.gaussian_generator import GaussianGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.fields import preset
from diffalign.settings.noise_ppo import PRESETS, NoisePPOConfig


def distil(
    pipeline: Any,
    runs: Path | str,
    *,
    steps: int = 300,
    learning_rate: float = 1e-3,
    num_steps: int = 20,
    guidance_scale: float | None = None,
    **settings: Any,
) -> GaussianGenerator:
    """Learns one generator of noise from runs of `find`; settings of `NoisePPOConfig`, as of the command.

    Arguments:
        pipeline: a diffusers pipeline, or what `load_pipeline` takes.
        runs, steps, learning_rate: as of `distillation`.
        num_steps, guidance_scale: of sampling, which the generator records.
    """
    sampler = Sampler(opened(pipeline), num_steps=num_steps, guidance_scale=guidance_scale)
    config = preset(PRESETS, "default", settings)
    generator, losses = distillation(Path(runs), sampler, config, steps=steps, learning_rate=learning_rate)
    for _ in losses:
        pass
    return generator


def distillation(
    runs: Path, sampler: Sampler, config: NoisePPOConfig, *, steps: int, learning_rate: float
) -> tuple[GaussianGenerator, Iterator[float]]:
    """A generator, and each step's loss: at their end it has learned.

    Arguments:
        runs: a folder of runs of `find`, or one of them.
        sampler: of the model that they were learned for.
        config: what the generator is made of; its learning rate is given apart.
        steps: optimiser steps.
        learning_rate: of Adam.

    Raises:
        ArtifactError: if there is no learned noise, or it is of another model.
    """
    files = sorted(runs.glob(f"**/{NOISE}")) if runs.is_dir() else []
    if not files:
        raise ArtifactError(f"{runs} holds no {NOISE}; give a folder of runs of diffalign find")
    metadata, noises = provenance(sampler, "distilled"), dict[str, NoiseDistribution]()
    for file in files:
        noise = NoiseDistribution.load(file)
        if "prompt" not in noise.metadata:
            raise ArtifactError(f"{file} does not say for which prompt it was learned")
        noise.check_model(metadata["model_fingerprint"], sampler.latent_shape)
        noises[noise.metadata["prompt"]] = noise
    generator = make_generator(GaussianGenerator, sampler, list(noises), config, metadata)
    return generator, fit(generator, noises, steps=steps, learning_rate=learning_rate, seed=config.seed)
