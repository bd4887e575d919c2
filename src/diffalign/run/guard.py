"""Looks at held-out prompts while a denoiser learns: is the reward being hacked?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from diffalign.diffusion import Sampler
from diffalign.evaluation import Judge, Samples, evaluate
from diffalign.metrics import Embedder, mean_pairwise_distance
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction
from diffalign.run.progress import Watched

#: The distribution of a prompt's initial noise.
Noise = Callable[[str], NoiseDistribution]


@dataclass(frozen=True)
class TuneSetup:
    """What is loaded for a tuning run. The names are those that were asked for."""

    sampler: Sampler
    reward: RewardFunction
    judges: Mapping[str, Judge | None]  # by prompt
    embed: Embedder | None
    model: str
    reward_name: str
    judge_name: str | None


@dataclass(frozen=True)
class Guard:
    """When to look at held-out prompts, and what is an alarm.

    Attributes:
        every: rounds between two looks; 0 never looks.
        images: fresh pictures a prompt.
        judged_drop: greatest fall of the judged share, below its best, that is no alarm.
        diversity_drop: greatest share of the first look's diversity that may be lost.
        stop: whether an alarm ends the run.
    """

    every: int = 10
    images: int = 8
    judged_drop: float = 0.1
    diversity_drop: float = 0.3
    stop: bool = False

    def alarm(self, looks: Sequence[Mapping[str, Any]]) -> str | None:
        """What is wrong at the last of `looks`, if the reward has risen since the first."""
        if len(looks) < 2 or looks[-1]["reward"] <= looks[0]["reward"]:
            return None
        first, last = looks[0], looks[-1]
        if last["judged"] is not None:
            best = max(look["judged"] for look in looks)
            if last["judged"] < best - self.judged_drop:
                return f"the reward rises while the judged share fell from {best:.2f} to {last['judged']:.2f}"
        if last["distance"] is not None and last["distance"] < (1 - self.diversity_drop) * first["distance"]:
            return (
                f"the reward rises while diversity fell from {first['distance']:.3f} to "
                f"{last['distance']:.3f} (mean pairwise distance)"
            )
        return None


def looks_at(guard: Guard, round: int) -> bool:
    """Whether held-out prompts are looked at after `round`, counted from 1."""
    return guard.every > 0 and (round == 1 or round % guard.every == 0)


def look(
    environment: Watched,
    setup: TuneSetup,
    prompts: Sequence[str],
    guard: Guard,
    seed: int,
    noise: Noise | None = None,
) -> dict[str, float | None]:
    """Means over held-out prompts; the same noise at every look."""
    samples, _ = measure(environment, setup, prompts, guard.images, seed, noise, stream="look")
    judged = [part.judged for part in samples if part.judged is not None]
    spread = [mean_pairwise_distance(part.embeddings) for part in samples if part.embeddings is not None]
    return {
        "reward": float(torch.cat([part.reward for part in samples]).mean()),
        "judged": float(torch.cat(judged).float().mean()) if judged else None,
        "distance": sum(spread) / len(spread) if spread else None,
    }


def measure(
    environment: Watched,
    setup: TuneSetup,
    prompts: Sequence[str],
    images: int,
    seed: int,
    noise: Noise | None = None,
    *,
    stream: str = "evaluate",
) -> tuple[list[Samples], float]:
    """Fresh pictures of each prompt, from N(0, I) or its `noise`, and the seconds they took."""
    began, standard = time.perf_counter(), NoiseDistribution.standard(setup.sampler.latent_shape)
    samples = [
        evaluate(
            environment,
            prompt,
            standard if noise is None else noise(prompt),
            setup.reward,
            judge=setup.judges.get(prompt),
            embed=setup.embed,
            n=images,
            seed=seed,
            stream=stream,
            batch_size=setup.sampler.batch_size,
        )
        for prompt in prompts
    ]
    return samples, time.perf_counter() - began
