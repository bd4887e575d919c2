"""Noise PPO as published: a Gaussian generator, a baseline and PPO's clipped surrogate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from diffalign.advantages import leave_one_out
from diffalign.advantages.running import RunningStatistics
from diffalign.objectives import ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.gaussian_generator import GaussianGenerator
from diffalign.rollout import Rollout
from diffalign.training.generating import GeneratorLearner
from diffalign.training.generator_config import GeneratorConfig
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


class GaussianLearner(GeneratorLearner):
    """Generator, baseline and optimiser over a set of prompts.

    Raises:
        ConfigError: if there are no prompts.
    """

    generator: GaussianGenerator

    def __init__(self, generator: GaussianGenerator, prompts: Sequence[str], config: GeneratorConfig) -> None:
        super().__init__(generator, prompts, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.value: Final = ValueHead(generator.shape.text_width)
        self.statistics = RunningStatistics(8)
        self.parameters = [*generator.parameters(), *self.value.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate)

    def tell(self, rollouts: Sequence[Rollout], rewards: Tensor) -> tuple[float, Diagnostics]:
        """By PPO: `epochs` passes, an optimiser step each `minibatch` prompts."""
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
            divergence = torch.stack([self.generator.divergence(policy) for policy in policies]).mean()
            loss = loss + config.kl_weight * divergence
        if config.baseline == "value":
            values = torch.stack([self.value(self.generator.states(r.prompts[0])) for r in rollouts])
            loss = loss + (values[:, None] - targets).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, config.max_grad_norm)
        self.optimiser.step()
        return loss.item(), diagnostics

    def tensors(self) -> dict[str, Tensor]:
        """Weights of generator and value head, and the optimiser's moments."""
        modules = {"generator": self.generator, "value": self.value}
        tensors = {f"{m}.{n}": v for m, module in modules.items() for n, v in module.state_dict().items()}
        return tensors | optimiser_tensors("optimiser", self.optimiser)

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `tensors` returned."""
        for name, module in (("generator", self.generator), ("value", self.value)):
            module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
        load_optimiser("optimiser", self.optimiser, tensors)

    def strings(self) -> dict[str, str]:
        """With the rewards of the last rounds."""
        return {**super().strings(), "statistics": self.statistics.state()}

    def load(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """See `GeneratorLearner.load`."""
        super().load(tensors, metadata)
        self.statistics.load(metadata["statistics"])
