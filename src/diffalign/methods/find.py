"""FIND: learn the distribution of one prompt's initial noise.

References: Chen et al. (ACM MM 2024), https://arxiv.org/abs/2407.19453
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from diffalign.diffusion import Sampler
from diffalign.learners.find import FindLearner
from diffalign.methods.provenance import provenance
from diffalign.methods.run import Run, prepare
from diffalign.policies.generator import NoiseGenerator
from diffalign.rewards import RewardFunction
from diffalign.settings.find import FindConfig


def build(sampler: Sampler, prompts: Sequence[str], config: FindConfig, reward: str) -> FindLearner:
    """FIND's learner.

    Raises:
        ArtifactError: if `config.start` is no noise generator of this model.
        ConfigError: if there is not one prompt.
        PipelineError: if the pipeline has no denoiser.
    """
    metadata = provenance(sampler, reward) | {"prompt": prompts[0], "seed": str(config.seed)}
    start = None
    if config.start:
        generator = NoiseGenerator.load(config.start, sampler.pipeline)
        metadata["start"] = generator.fingerprint()
        with torch.no_grad():
            start = generator.start(prompts[0], config.first)
    return FindLearner(sampler, prompts, config, metadata, start)


def find(pipeline: Any, prompt: str, reward: RewardFunction | str, **settings: Any) -> Run:
    """Prepares a FIND run on any diffusers pipeline that takes `latents=`; the pipeline stays as it is.

    Arguments:
        settings: as of `diffalign.methods.run.prepare` (num_steps, preset_name …), and of `FindConfig`.

    Returns:
        An iterable of `Round`; `.run()` goes to the end and returns the `NoiseDistribution`.
    """
    return prepare("find", pipeline, prompt, reward, **settings)
