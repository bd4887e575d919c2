"""The loop: ask → sample → score → tell. Who wants to own it calls the learner himself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics
from diffalign.rewards import RewardFunction, score
from diffalign.rollout import Environment, collect
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
    learner: NoiseLearner, environment: Environment, prompt: str, reward: RewardFunction
) -> Iterator[Step]:
    """Learns until the queries are spent; yields a `Step` an update.

    Raises:
        RewardError: if the reward fails; the learner is as it was before the update, and can go on.
    """
    config = learner.config
    while learner.queries < config.queries:
        began = time.perf_counter()
        current = learner.distribution()
        rollout = collect(
            current, environment, prompt, learner.ask(), seed=config.seed, antithetic=config.antithetic
        )
        rewards = score(reward, rollout.images, rollout.prompts)
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
