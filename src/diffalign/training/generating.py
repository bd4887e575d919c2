"""What every learner of a noise generator does, and the loop around it: ask → sample → score → tell."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Environment, Rollout, collect
from diffalign.training.config import ConfigError
from diffalign.training.generator_config import GeneratorConfig


@dataclass(frozen=True)
class GeneratorRound:
    """What one round did. `rewards` are `(P·K,)`, prompt by prompt; `images` those of the last prompt."""

    round: int
    queries: int
    prompts: tuple[str, ...]
    rewards: Tensor
    images: Tensor
    loss: float
    diagnostics: Diagnostics
    divergence: float  # of a prompt's noise from the first policy, in nats
    optimiser_steps: int
    seconds: float

    def figures(self) -> dict[str, float | int | list[float]]:
        """The numbers, as a line of `metrics.jsonl`."""
        return {
            "step": self.round,
            "queries": self.queries,
            "reward_mean": float(self.rewards.mean()),
            "reward_best": float(self.rewards.max()),
            "rewards": self.rewards.tolist(),
            "loss": self.loss,
            **{field.name: getattr(self.diagnostics, field.name) for field in fields(self.diagnostics)},
            "divergence": self.divergence,
            "optimiser_steps": self.optimiser_steps,
            "seconds": self.seconds,
        }


class GeneratorLearner(ABC):
    """A generator that learns from a set of prompts.

    Raises:
        ConfigError: if there are no prompts.
    """

    def __init__(self, generator: NoiseGenerator, prompts: Sequence[str], config: GeneratorConfig) -> None:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise ConfigError("learning needs at least one prompt, none of them empty")
        self.generator, self.prompts, self.config = generator, tuple(prompts), config
        self.round = self.optimiser_steps = 0

    @property
    def queries(self) -> int:
        """Reward queries so far."""
        return self.round * self.config.prompts_per_round * self.config.samples_per_prompt

    def ask(self) -> list[tuple[str, range]]:
        """The prompts of the next round, in turn in an order that the seed determines, and the numbers
        of their samples."""
        config, asked = self.config, list[tuple[str, range]]()
        number = config.prompts_per_round
        for group in range(self.round * number, (self.round + 1) * number):
            turn, place = divmod(group, len(self.prompts))
            order = np.random.default_rng([config.seed, turn]).permutation(len(self.prompts))
            first = group * config.samples_per_prompt
            asked.append((self.prompts[order[place]], range(first, first + config.samples_per_prompt)))
        return asked

    @torch.no_grad()
    def distribution(self, prompt: str) -> NoiseDistribution:
        """Of the noise that `prompt`'s next samples are drawn from, without gradient."""
        return self.generator(prompt)

    @abstractmethod
    def tell(self, rollouts: Sequence[Rollout], rewards: Tensor) -> tuple[float, Diagnostics]:
        """Learns from the samples that were asked for, a rollout a prompt, and their rewards `(P·K,)`.

        Returns:
            loss and diagnostics, means over the samples.
        """

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """All that was learned, and what learning on needs."""

    @abstractmethod
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `tensors` returned."""

    def strings(self) -> dict[str, str]:
        """What learning on needs beside tensors."""
        return {"round": str(self.round), "optimiser_steps": str(self.optimiser_steps)}

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything that `load` needs to go on to the same result: tensors and strings."""
        return self.tensors(), {**self.strings(), "learner": self._identity()}

    def load(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Restores what `state` returned.

        Raises:
            ConfigError: if it is the state of a learner with other settings.
        """
        if metadata.get("learner") != self._identity():
            raise ConfigError(
                f"the saved state is that of another learner, {metadata.get('learner')}; "
                f"this one's settings are {self._identity()}"
            )
        self.restore(tensors)
        self.round, self.optimiser_steps = int(metadata["round"]), int(metadata["optimiser_steps"])

    def _identity(self) -> str:
        return json.dumps({"prompts": self.prompts, **asdict(self.config)})


def train_generator(
    learner: GeneratorLearner, environment: Environment, reward: RewardFunction
) -> Iterator[GeneratorRound]:
    """Learns until all rounds are done; yields a `GeneratorRound` each.

    Raises:
        RewardError: if the reward fails; the learner is as it was before the round, and can go on.
    """
    while learner.round < learner.config.rounds:
        began = time.perf_counter()
        asked, seed = learner.ask(), learner.config.seed
        parts = (
            collect(learner.distribution(prompt), environment, prompt, indices, seed=seed)
            for prompt, indices in asked
        )
        scored = list(overlapped(parts, lambda part: score(reward, part.images, part.prompts)))
        rollouts, rewards = [part for part, _ in scored], torch.cat([said for _, said in scored])
        loss, diagnostics = learner.tell(rollouts, rewards)
        generator = learner.generator
        with torch.no_grad():
            divergences = [float(generator.divergence(generator(prompt))) for prompt, _ in asked]
        yield GeneratorRound(
            round=learner.round,
            queries=learner.queries,
            prompts=tuple(prompt for prompt, _ in asked),
            rewards=rewards,
            images=rollouts[-1].images,
            loss=loss,
            diagnostics=diagnostics,
            divergence=sum(divergences) / len(asked),
            optimiser_steps=learner.optimiser_steps,
            seconds=time.perf_counter() - began,
        )
