"""The loop: ask → sample → score → tell. Who wants to own it calls the learner himself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Environment, Rollout, collect
from diffalign.training.learner import NoiseLearner


@dataclass(frozen=True)
class Step:
    """What one update did. `rewards` and `images` are those of its own samples."""

    step: int
    queries: int
    rewards: Tensor
    images: Tensor
    best: float
    loss: float
    diagnostics: Diagnostics
    mean_norm: float
    std_mean: float
    effective_components: float
    kl_to_standard: float
    seconds: float

    def figures(self) -> dict[str, float | int | list[float]]:
        """The numbers, as a line of `metrics.jsonl`."""
        return {
            "step": self.step,
            "queries": self.queries,
            "reward_mean": float(self.rewards.mean()),
            "reward_best": self.best,
            "rewards": self.rewards.tolist(),
            "loss": self.loss,
            **{field.name: getattr(self.diagnostics, field.name) for field in fields(self.diagnostics)},
            "mean_norm": self.mean_norm,
            "std_mean": self.std_mean,
            "effective_components": self.effective_components,
            "kl_to_standard": self.kl_to_standard,
            "seconds": self.seconds,
        }


def train(
    learner: NoiseLearner,
    environment: Environment,
    prompt: str,
    reward: RewardFunction,
    *,
    batch_size: int = 16,
) -> Iterator[Step]:
    """Learns until the queries are spent; yields a `Step` an update.

    Arguments:
        batch_size: pictures made at a time; one batch is scored while the next is made.

    Raises:
        RewardError: if the reward fails; the learner is as it was before the update, and can go on.
    """
    config = learner.config
    while learner.queries < config.queries:
        began = time.perf_counter()
        rollout, rewards = _sample_and_score(learner, environment, prompt, reward, batch_size)
        loss, diagnostics = learner.tell(rollout, rewards)
        learned = learner.distribution()
        yield Step(
            step=learner.steps,
            queries=learner.queries,
            rewards=rewards,
            images=rollout.images,
            best=learner.best,
            loss=loss,
            diagnostics=diagnostics,
            mean_norm=float(learned.center().norm()),
            std_mean=float(learned.std.mean()),
            effective_components=learned.effective_components(),
            kl_to_standard=float(learned.kl()),
            seconds=time.perf_counter() - began,
        )


def _sample_and_score(
    learner: NoiseLearner, environment: Environment, prompt: str, reward: RewardFunction, batch_size: int
) -> tuple[Rollout, Tensor]:
    """The samples that the next update wants, and their rewards `(B,)`."""
    config, current, asked = learner.config, learner.distribution(), learner.ask()
    parts = (
        collect(current, environment, prompt, part, seed=config.seed, antithetic=config.antithetic)
        for part in (asked[i : i + batch_size] for i in range(0, len(asked), batch_size))
    )
    scored = list(overlapped(parts, lambda part: score(reward, part.images, part.prompts)))
    return Rollout.cat([part for part, _ in scored]), torch.cat([rewards for _, rewards in scored])
