"""The learner of one prompt's initial noise: ask for samples, tell it their rewards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from diffalign.advantages import ValueNet, leave_one_out, rank, standardise
from diffalign.advantages.drcm import value_loss
from diffalign.objectives import policy_gradient_loss, ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.natural import NaturalGradient
from diffalign.policies.noise import NoiseDistribution, NoisePolicy
from diffalign.rollout import Rollout
from diffalign.training.config import ConfigError, NoiseConfig

CALIBRATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rank": rank,
    "leave-one-out": leave_one_out,
    "standardise": standardise,
}


class NoiseLearner:
    """Policy, calibration and optimiser of one prompt's initial noise.

    Arguments:
        latent: the shape of one latent.
        config: how it learns.
    """

    def __init__(self, latent: Sequence[int], config: NoiseConfig) -> None:
        self.config: Final = config
        self.policy = NoisePolicy(latent, config.basis, config.std)
        if config.optimiser == "natural":
            self.optimiser: torch.optim.Optimizer = NaturalGradient(self.policy, config.learning_rate)
        else:
            self.optimiser = torch.optim.AdamW(self.policy.parameters(), lr=config.learning_rate)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.value = ValueNet(self.policy.mean.numel())
        self.value_optimiser = torch.optim.AdamW(self.value.parameters(), lr=config.value_learning_rate)
        self.steps = 0
        self.best = float("-inf")
        empty = torch.empty(0, *self.policy.latent)
        self.x_T, self.rewards = empty, torch.empty(0)
        coefficients = torch.empty(0, *self.policy.mean.shape)
        self.means, self.stds = coefficients, coefficients
        self.previous = self.distribution()

    @property
    def queries(self) -> int:
        """Reward queries so far."""
        return len(self.rewards)

    def distribution(self) -> NoiseDistribution:
        """A copy of the current distribution, without gradient."""
        with torch.no_grad():
            now = self.policy()
            return NoiseDistribution(now.mean.clone(), now.std.clone(), now.latent, now.basis)

    def ask(self) -> range:
        """The numbers of the samples that the next update wants."""
        return range(self.queries, min(self.queries + self.config.batch, self.config.queries))

    def tell(self, rollout: Rollout, rewards: Tensor) -> tuple[float, Diagnostics]:
        """Learns from samples of `distribution()` and their rewards `(B,)`; returns loss and diagnostics."""
        size = len(rewards)
        current = self.distribution()
        self.x_T = torch.cat([self.x_T, rollout.x_T])
        self.rewards = torch.cat([self.rewards, rewards])
        self.means = torch.cat([self.means, current.mean.expand(size, *current.mean.shape)])
        self.stds = torch.cat([self.stds, current.std.expand(size, *current.std.shape)])
        self.best = max(self.best, float(rewards.max()))
        used = slice(None) if self.config.history else slice(-size, None)
        advantage = self._calibrate()[used, None]
        x_T = self.x_T[used]
        # RCA's reference is the policy of the previous step
        old_log_prob = self.previous.log_prob(x_T) if self.config.history else rollout.log_prob
        log_prob = self.policy().log_prob(x_T)
        if self.config.clip_range:
            loss, diagnostics = ppo_loss(log_prob, old_log_prob, advantage, clip_range=self.config.clip_range)
        else:
            loss, diagnostics = policy_gradient_loss(log_prob, old_log_prob, advantage)
        self.optimiser.zero_grad()
        loss.backward()
        self.previous = current
        self.optimiser.step()
        self.steps += 1
        return loss.item(), diagnostics

    def _calibrate(self) -> Tensor:
        """Advantages of all samples so far, with shape `(N,)`."""
        if self.config.advantage == "none":
            return self.rewards
        if self.config.advantage in CALIBRATIONS:
            return CALIBRATIONS[self.config.advantage](self.rewards)
        with torch.no_grad():
            expected = self.value(self.means, self.stds)  # before it has seen the newest reward
        for _ in range(self.config.value_updates):
            self.value_optimiser.zero_grad()
            value_loss(self.value(self.means, self.stds), self.rewards).backward()
            self.value_optimiser.step()
        return self.rewards - expected  # eq. 9: r* = r − V(μ, σ)

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything that `load` needs to go on to the same result: tensors and strings."""
        tensors = {
            "x_T": self.x_T,
            "rewards": self.rewards,
            "means": self.means,
            "stds": self.stds,
            "previous.mean": self.previous.mean,
            "previous.std": self.previous.std,
        }
        modules = {"policy": self.policy, "value": self.value}
        for prefix, module in modules.items():
            tensors |= {f"{prefix}.{name}": value.detach() for name, value in module.state_dict().items()}
        for prefix, optimiser in self._optimisers():
            for index, entry in optimiser.state_dict()["state"].items():
                tensors |= {f"{prefix}.{index}.{name}": torch.as_tensor(v) for name, v in entry.items()}
        return tensors, {"steps": str(self.steps), "queries": str(self.queries)}

    def load(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Restores what `state` returned.

        Raises:
            ConfigError: if it is the state of a learner with other settings.
        """
        if tensors["policy.mean"].shape != self.policy.mean.shape:
            raise ConfigError("the saved state belongs to a run with another latent shape or basis")
        self.x_T, self.rewards = tensors["x_T"], tensors["rewards"]
        self.means, self.stds = tensors["means"], tensors["stds"]
        self.steps = int(metadata["steps"])
        self.best = float(self.rewards.max()) if len(self.rewards) else float("-inf")
        current = self.distribution()
        self.previous = NoiseDistribution(
            tensors["previous.mean"], tensors["previous.std"], current.latent, current.basis
        )
        modules = {"policy": self.policy, "value": self.value}
        for prefix, module in modules.items():
            module.load_state_dict({n: tensors[f"{prefix}.{n}"] for n in module.state_dict()})
        for prefix, optimiser in self._optimisers():
            entries: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"{prefix}."):
                    _, index, name = key.split(".", 2)
                    entries.setdefault(int(index), {})[name] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": entries})

    def _optimisers(self) -> tuple[tuple[str, torch.optim.Optimizer], ...]:
        return ("optimiser", self.optimiser), ("value_optimiser", self.value_optimiser)
