"""What a result comes from: environment, reward, and how an artefact names them."""

from __future__ import annotations

from typing import Any

from diffalign.diffusion import Sampler, fingerprint
from diffalign.rewards import RewardFunction, load_reward


def origin(sampler: Sampler, reward: str) -> dict[str, str]:
    """What a result depends on beside the settings of learning, as metadata."""
    return {
        "model_fingerprint": fingerprint(sampler.pipeline),
        "scheduler": type(sampler.pipeline.scheduler).__name__,
        "num_steps": str(sampler.num_steps),
        "guidance_scale": str(sampler.guidance_scale),
        "reward": reward,
    }


def name_of(reward: RewardFunction) -> str:
    """What a callable reward is called where nobody said."""
    return str(getattr(reward, "__name__", type(reward).__name__))


def prepared(
    pipeline: Any, reward: RewardFunction | str, num_steps: int, guidance_scale: float | None, **more: Any
) -> tuple[Sampler, RewardFunction, str]:
    """Environment, reward and the reward's name, from what a method's function is given."""
    sampler = Sampler(pipeline, num_steps=num_steps, guidance_scale=guidance_scale, **more)
    if isinstance(reward, str):
        return sampler, load_reward(reward), reward
    return sampler, reward, name_of(reward)
