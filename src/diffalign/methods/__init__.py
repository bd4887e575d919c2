"""METHOD: the published methods and our defaults, as rows that compose the parts.

A row of `diffalign.settings.methods` has a method's settings, presets and learner. Each function here takes
what `prepare` does (num_steps, guidance_scale, scheduler, batch_size, preset_name, call) and the method's own
settings, and returns a `Run`: iterate over it for `Round` records, or `.run()` it to the end.
"""

from collections.abc import Sequence
from typing import Any

from diffalign.methods.run import Run, build, prepare
from diffalign.rewards import RewardFunction


def find(pipeline: Any, prompt: str, reward: RewardFunction | str, **settings: Any) -> Run:
    """FIND: learns the noise of one prompt, of any pipeline that takes `latents=`; settings of `FindConfig`.

    Its result is a `NoiseDistribution`.
    """
    return prepare("find", pipeline, prompt, reward, **settings)


def anchors(pipeline: Any, prompts: Sequence[str], reward: RewardFunction | str, **settings: Any) -> Run:
    """Learns which of a set of fixed noises suits which prompt; settings of `AnchorConfig`.

    Its result is a `NoiseGenerator`.
    """
    return prepare("anchors", pipeline, prompts, reward, **settings)


def noise_ppo(pipeline: Any, prompts: Sequence[str], reward: RewardFunction | str, **settings: Any) -> Run:
    """Noise PPO: learns one generator of noise for all prompts; settings of `NoisePPOConfig`.

    Its result is a `NoiseGenerator`.
    """
    return prepare("noise-ppo", pipeline, prompts, reward, **settings)


def tune(pipeline: Any, prompts: Sequence[str], reward: RewardFunction | str, **settings: Any) -> Run:
    """Tunes the pipeline's denoiser (DDPO, PG, DPOK, DPO, B²-DiffuRL); settings of `TuneConfig`.

    The pipeline is changed: it has an adapter, or other weights. The result is a `DenoiserPolicy`, whose
    `save(folder)` writes them, and whose `unload()` then gives the pipeline back as it was.
    """
    return prepare("tune", pipeline, prompts, reward, **settings)


def search(pipeline: Any, prompt: str, reward: RewardFunction | str, **settings: Any) -> Run:
    """Searches the best pictures of a prompt; settings of `SearchConfig`. Its result is a `SearchResult`."""
    return prepare("search", pipeline, prompt, reward, **settings)


__all__ = ["Run", "anchors", "build", "find", "noise_ppo", "prepare", "search", "tune"]
