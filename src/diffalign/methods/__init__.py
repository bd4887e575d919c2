"""METHOD: the published methods and our defaults, as rows that compose the parts.

A row of `diffalign.settings.methods` has a method's settings, presets and learner. Each function here takes
a diffusers pipeline or a model's name, what `prepare_runs` does (preset, num_steps, guidance_scale,
scheduler, batch_size, call, callback) and the method's own settings, and returns a `Run`: iterate over it
for `Round` records, or `.run()` it to the end. What learns prompt by prompt returns a list of runs for a list
of prompts.
"""

from collections.abc import Sequence
from typing import Any, overload

from diffalign.methods.distil import distil
from diffalign.methods.run import Run, build, prepare, prepare_runs
from diffalign.prompts import PromptSet
from diffalign.rewards import RewardFunction

Prompts = list[str] | tuple[str, ...] | PromptSet


@overload
def find(pipeline: Any, prompt: str, reward: RewardFunction | str, **settings: Any) -> Run: ...
@overload
def find(pipeline: Any, prompt: Prompts, reward: RewardFunction | str, **settings: Any) -> list[Run]: ...
def find(
    pipeline: Any, prompt: str | Prompts, reward: RewardFunction | str, **settings: Any
) -> Run | list[Run]:
    """FIND: learns the noise of one prompt, of any pipeline that takes `latents=`; settings of `FindConfig`.

    Its result is a `NoiseDistribution`.
    """
    return _each("find", pipeline, prompt, reward, **settings)


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


@overload
def search(pipeline: Any, prompt: str, reward: RewardFunction | str, **settings: Any) -> Run: ...
@overload
def search(pipeline: Any, prompt: Prompts, reward: RewardFunction | str, **settings: Any) -> list[Run]: ...
def search(
    pipeline: Any, prompt: str | Prompts, reward: RewardFunction | str, **settings: Any
) -> Run | list[Run]:
    """Searches the best pictures of a prompt; settings of `SearchConfig`. Its result is a `SearchResult`."""
    return _each("search", pipeline, prompt, reward, **settings)


def _each(
    name: str, pipeline: Any, prompt: str | Prompts, reward: RewardFunction | str, **settings: Any
) -> Run | list[Run]:
    """The run of a prompt, or those of a list."""
    if isinstance(prompt, str):
        return prepare(name, pipeline, prompt, reward, **settings)
    return prepare_runs(name, pipeline, [(text,) for text in prompt] or [()], reward, **settings)


__all__ = ["Run", "anchors", "build", "distil", "find", "noise_ppo", "prepare", "search", "tune"]
