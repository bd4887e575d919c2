"""The loop that tunes a denoiser: ask → sample → score → tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diffalign.rewards import RewardFunction, score
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Trajectories, collect_trajectories
from diffalign.training.tuner import Order, Tuner, Update


@dataclass(frozen=True)
class Round:
    """What one round did. `prompts` and `rewards` are those of its samples, `images` of this process's."""

    round: int
    queries: int
    interval: range
    prompts: tuple[str, ...]
    rewards: Tensor
    images: Tensor
    update: Update
    optimiser_steps: int
    forwards: int  # evaluations of the denoiser, guidance not counted
    sampling_seconds: float
    seconds: float

    def figures(self) -> dict[str, float | int | list[float] | None]:
        """The numbers, as a line of `metrics.jsonl`."""
        diagnostics = self.update.diagnostics
        return {
            "step": self.round,
            "queries": self.queries,
            "interval": len(self.interval),
            "reward_mean": float(self.rewards.mean()),
            "reward_best": float(self.rewards.max()),
            "rewards": self.rewards.tolist(),
            "selected": self.update.selected,
            "optimiser_steps": self.optimiser_steps,
            "loss": self.update.loss,
            **(
                {field.name: getattr(diagnostics, field.name) for field in fields(diagnostics)}
                if diagnostics
                else {}
            ),
            "first_ratio_error": self.update.first_ratio_error,
            "sampling_seconds": self.sampling_seconds,
            "seconds": self.seconds,
        }


def tune(tuner: Tuner, reward: RewardFunction) -> Iterator[Round]:
    """Learns until all rounds are done; yields a `Round` each.

    Raises:
        RewardError: if the reward fails; the tuner is as it was before the round, and can go on.
    """
    while tuner.round < tuner.config.rounds:
        began = time.perf_counter()
        order = tuner.ask()
        trajectories, rewards = sample_and_score(tuner, order, reward)
        sampled = time.perf_counter()
        update = tuner.tell(order, trajectories, rewards)
        yield Round(
            round=tuner.round,
            queries=tuner.queries,
            interval=order.interval,
            prompts=update.prompts,
            rewards=update.rewards,
            images=trajectories.images,
            update=update,
            optimiser_steps=tuner.optimiser_steps,
            forwards=_forwards(tuner, order, update),
            sampling_seconds=sampled - began,
            seconds=time.perf_counter() - began,
        )


def _forwards(tuner: Tuner, order: Order, update: Update) -> int:
    """Of sampling, the steps before the interval once a group, and of learning, the pretrained ones too."""
    samples = len(order.groups) * tuner.branches.number
    sampled = order.interval.start * len(order.groups) + len(order.interval) * samples
    twice = 2 if tuner.config.objective in ("dpok", "dpo") else 1
    return sampled + twice * update.selected * len(order.interval)


def sample_and_score(tuner: Tuner, order: Order, reward: RewardFunction) -> tuple[Trajectories, Tensor]:
    """This process's part of `order` and its rewards `(B,)`; a batch is scored while the next is sampled."""
    places = [place for parcel in tuner.processes.share(order.parcels) for place in parcel]
    size = max(1, tuner.policy.sampler.batch_size // tuner.branches.number)
    parts = (
        collect_trajectories(
            tuner.policy,
            [order.groups[place] for place in batch],
            [order.prompts[place] for place in batch],
            order.interval,
            tuner.branches,
            seed=tuner.config.seed,
        )
        for batch in (places[i : i + size] for i in range(0, len(places), size))
    )
    scored = list(
        overlapped(parts, lambda part: score(reward, part.images, part.prompts), tuner.policy.device)
    )
    return Trajectories.cat([part for part, _ in scored]), torch.cat([rewards for _, rewards in scored])
