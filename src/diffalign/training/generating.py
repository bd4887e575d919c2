"""The learner of a noise generator, and the loop around it: ask → sample → score → tell."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from diffalign.advantages import leave_one_out
from diffalign.advantages.running import RunningStatistics
from diffalign.objectives import ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardFunction, score
from diffalign.rollout import Environment, Rollout, collect
from diffalign.training.config import ConfigError, GeneratorConfig
from diffalign.training.state import load_optimiser, optimiser_tensors


class ValueHead(nn.Module):
    """A guess of a prompt's mean reward from its token states, `(L, text_width)` → a scalar."""

    def __init__(self, text_width: int, width: int = 64) -> None:
        super().__init__()
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(text_width, width), nn.Tanh(), last)

    def forward(self, states: Tensor) -> Tensor:
        """Of rewards that were standardised over a round."""
        guess: Tensor = self.layers(states.mean(0))
        return guess[0]


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


class GeneratorLearner:
    """Generator, baseline and optimiser over a set of prompts.

    Raises:
        ConfigError: if there are no prompts.
    """

    def __init__(self, generator: NoiseGenerator, prompts: Sequence[str], config: GeneratorConfig) -> None:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise ConfigError("learning needs at least one prompt, none of them empty")
        self.generator, self.prompts, self.config = generator, tuple(prompts), config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.value: Final = ValueHead(generator.shape.text_width)
        self.statistics = RunningStatistics(8)
        self.parameters = [*generator.parameters(), *self.value.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate)
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
        """Of `prompt`'s noise, as it is now, without gradient."""
        return self.generator(prompt)

    def tell(self, rollouts: Sequence[Rollout], rewards: Tensor) -> tuple[float, Diagnostics]:
        """Learns from the samples that were asked for, a rollout a prompt, and their rewards `(P·K,)`.

        Returns:
            loss and diagnostics, means over the samples of all epochs.
        """
        config, prompts = self.config, [rollout.prompts[0] for rollout in rollouts]
        # one scale for all prompts: a prompt whose rewards hardly differ has little to teach
        targets = ((rewards - rewards.mean()) / (rewards.std(correction=0) + 1e-6)).view(len(prompts), -1)
        advantage = self._advantage(prompts, rewards, targets)
        done, sizes = [], []
        for epoch in range(config.epochs):
            order = np.random.default_rng([config.seed, self.round, epoch]).permutation(len(prompts))
            for start in range(0, len(prompts), config.minibatch):
                batch = order[start : start + config.minibatch].tolist()
                sizes.append(len(batch))
                done.append(self._step([rollouts[i] for i in batch], advantage[batch], targets[batch]))
        self.round += 1
        self.optimiser_steps += len(done)
        loss = sum(loss * size for (loss, _), size in zip(done, sizes, strict=True)) / sum(sizes)
        return loss, Diagnostics.mean([each for _, each in done], sizes)

    def _advantage(self, prompts: Sequence[str], rewards: Tensor, targets: Tensor) -> Tensor:
        """With shape `(P, K)`."""
        if self.config.baseline == "running":
            each = [prompt for prompt in prompts for _ in range(self.config.samples_per_prompt)]
            return self.statistics.normalise(each, rewards).view_as(targets)
        if self.config.baseline == "leave-one-out":
            return torch.stack([leave_one_out(own) for own in targets])
        with torch.no_grad():
            expected = torch.stack([self.value(self.generator.states(prompt)) for prompt in prompts])
        return targets - expected[:, None]

    def _step(
        self, rollouts: Sequence[Rollout], advantage: Tensor, targets: Tensor
    ) -> tuple[float, Diagnostics]:
        """One optimiser step from some prompts' samples."""
        config, elements = self.config, math.prod(self.generator.shape.latent)
        policies = [self.generator(rollout.prompts[0]) for rollout in rollouts]
        log_prob = torch.cat([p.log_prob(r.x_T) for p, r in zip(policies, rollouts, strict=True)])
        old_log_prob = torch.cat([rollout.log_prob for rollout in rollouts])
        # whole decisions: the generator decides on few coefficients of many elements
        loss, diagnostics = ppo_loss(
            elements * log_prob,
            elements * old_log_prob,
            advantage.reshape(-1, 1),
            clip_range=config.clip_range,
        )
        if config.kl_weight:
            loss = (
                loss
                + config.kl_weight
                * torch.stack([self.generator.divergence(policy) for policy in policies]).mean()
            )
        if config.baseline == "value":
            values = torch.stack([self.value(self.generator.states(r.prompts[0])) for r in rollouts])
            loss = loss + (values[:, None] - targets).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
        self.optimiser.step()
        return loss.item(), diagnostics

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything that `load` needs to go on to the same result: tensors and strings."""
        modules = {"generator": self.generator, "value": self.value}
        tensors = {f"{m}.{n}": v for m, module in modules.items() for n, v in module.state_dict().items()}
        tensors |= optimiser_tensors("optimiser", self.optimiser)
        counts = {"round": str(self.round), "optimiser_steps": str(self.optimiser_steps)}
        return tensors, {**counts, "statistics": self.statistics.state(), "learner": self._identity()}

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
        for name, module in (("generator", self.generator), ("value", self.value)):
            module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
        load_optimiser("optimiser", self.optimiser, tensors)
        self.round, self.optimiser_steps = int(metadata["round"]), int(metadata["optimiser_steps"])
        self.statistics.load(metadata["statistics"])

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
        rollouts, rewards, asked = [], [], learner.ask()
        for prompt, indices in asked:
            noise = learner.distribution(prompt)
            rollout = collect(noise, environment, prompt, indices, seed=learner.config.seed)
            rollouts.append(rollout)
            rewards.append(score(reward, rollout.images, rollout.prompts))
        loss, diagnostics = learner.tell(rollouts, torch.cat(rewards))
        divergence = learner.generator.divergence
        yield GeneratorRound(
            round=learner.round,
            queries=learner.queries,
            prompts=tuple(prompt for prompt, _ in asked),
            rewards=torch.cat(rewards),
            images=rollouts[-1].images,
            loss=loss,
            diagnostics=diagnostics,
            divergence=sum(float(divergence(learner.distribution(p))) for p, _ in asked) / len(asked),
            optimiser_steps=learner.optimiser_steps,
            seconds=time.perf_counter() - began,
        )
