"""Noise PPO as published: a Gaussian generator, a baseline and PPO's clipped surrogate."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from diffalign.advantages import leave_one_out, standardise
from diffalign.advantages.running import RunningStatistics
from diffalign.diffusion import Sampler
from diffalign.learners.amortised import AmortisedLearner, make_generator
from diffalign.learners.contract import Update, check_rewards
from diffalign.learners.optimisers import left_out, take_step
from diffalign.objectives import ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.gaussian_generator import GaussianGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.rollout import Rollout, repeated
from diffalign.settings.noise_ppo import NoisePPOConfig

WINDOW = 8  # rounds whose rewards are a prompt's running baseline


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


def log_ratio(policy: NoiseDistribution, before: NoiseDistribution, x_T: Tensor) -> Tensor:
    """(log π − log π_old + KL(π_old ‖ π)) / √n of Gaussian decisions `x_T`, `(B, *latent)` → `(B, 1)`.

    Undivided, a log-ratio of n coefficients that each move a little spreads with √n, and its mean, −KL, falls
    with n: a clip range would mean something else for each latent. This has mean 0 under π_old, where π has
    hardly moved the spread of one coefficient, and the gradient of log π / √n.
    """
    change = policy.log_prob(x_T, "sum") - before.log_prob(x_T, "sum")
    old, new = Normal(before.mean, before.std), Normal(policy.mean, policy.std)
    divergence = kl_divergence(old, new).sum().detach()
    return (change + divergence) / math.sqrt(policy.mean.numel())


class NoisePPOLearner(AmortisedLearner):
    """A Gaussian generator, its baseline and its optimiser over a set of prompts."""

    config: NoisePPOConfig
    generator: GaussianGenerator
    remembered = "generator", "value", "optimiser"

    def prepare(self) -> None:
        """The value head, running statistics and the optimiser of generator and head."""
        config, generator = self.config, self.generator
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(config.seed)
            self.value = ValueHead(generator.shape.text_width)
        self.statistics = RunningStatistics(WINDOW)
        self.parameters = [*generator.parameters(), *self.value.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=config.learning_rate)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """By PPO: `epochs` passes, an optimiser step each `minibatch` prompts."""
        check_rewards(rollout, rewards)
        config, prompts = self.config, rollout.prompts[:: self.config.samples_per_prompt]
        # one scale for all prompts: a prompt whose rewards hardly differ has little to teach
        targets = standardise(rewards).view(len(prompts), -1)
        advantage = self._advantage(prompts, rewards, targets)
        with torch.no_grad():
            before = [self.generator(prompt) for prompt in prompts]
        losses, diagnostics, sizes, steps = [], [], [], 0
        for epoch in range(config.epochs):
            order = np.random.default_rng([config.seed, self.rounds, epoch]).permutation(len(prompts))
            for start in range(0, len(prompts), config.minibatch):
                batch = order[start : start + config.minibatch].tolist()
                old = [before[i] for i in batch]
                loss, one, taken = self._step(rollout, batch, old, advantage[batch], targets[batch])
                steps += 1
                if taken:
                    losses.append(loss)
                    diagnostics.append(one)
                    sizes.append(len(batch))
        self.rounds += 1
        self.optimiser_steps += len(losses)
        return self.update(
            rollout,
            rewards,
            sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / sum(sizes)
            if losses
            else None,
            Diagnostics.mean(diagnostics, sizes) if losses else None,
            selected=len(rewards),
            optimiser_steps=len(losses),
            figures={"divergence": self.divergence(rollout.prompts)},
            warning=left_out(self.rounds, len(losses), steps),
        )

    def _advantage(self, prompts: Sequence[str], rewards: Tensor, targets: Tensor) -> Tensor:
        """With shape `(P, K)`."""
        if self.config.baseline == "running":
            each = repeated(prompts, self.config.samples_per_prompt)
            return self.statistics.normalise(each, rewards).view_as(targets)
        if self.config.baseline == "leave-one-out":
            return torch.stack([leave_one_out(own) for own in targets])
        with torch.no_grad():
            expected = torch.stack([self.value(self.generator.states(prompt)) for prompt in prompts])
        return targets - expected[:, None]

    def _step(
        self,
        rollout: Rollout,
        batch: Sequence[int],
        before: Sequence[NoiseDistribution],
        advantage: Tensor,
        targets: Tensor,
    ) -> tuple[float, Diagnostics, bool]:
        """One optimiser step from the samples of the prompts numbered `batch`, and whether it was taken."""
        config, samples = self.config, self.config.samples_per_prompt
        prompts, noises = [rollout.prompts[i * samples] for i in batch], rollout.x_T.split(samples)
        policies = [self.generator(prompt) for prompt in prompts]
        each = zip(policies, before, batch, strict=True)
        ratio = torch.cat([log_ratio(policy, old, noises[i]) for policy, old, i in each])
        loss, diagnostics = ppo_loss(
            ratio, torch.zeros_like(ratio), advantage.reshape(-1, 1), clip_range=config.clip_range
        )
        if config.kl_weight:
            divergence = torch.stack([self.generator.divergence(policy) for policy in policies]).mean()
            loss = loss + config.kl_weight * divergence
        if config.baseline == "value":
            values = torch.stack([self.value(self.generator.states(prompt)) for prompt in prompts])
            loss = loss + (values[:, None] - targets).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        taken = take_step(self.optimiser, self.parameters, config.max_grad_norm)
        return loss.item(), diagnostics, taken

    def strings(self) -> dict[str, str]:
        return {"statistics": self.statistics.state()}

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        super().restore(tensors, strings)
        self.statistics.load(strings["statistics"])


def build(
    sampler: Sampler, prompts: Sequence[str], config: NoisePPOConfig, metadata: Mapping[str, str]
) -> NoisePPOLearner:
    """A learner whose generator starts as N(0, I); raises what `make_generator` does."""
    generator = make_generator(GaussianGenerator, sampler, prompts, config, metadata)
    return NoisePPOLearner(sampler, prompts, config, generator)
