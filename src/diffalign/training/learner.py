"""The learner of one prompt's initial noise: ask for samples, tell it their rewards."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Final

import torch
from torch import Tensor, nn

from diffalign.advantages import ValueNet, leave_one_out, rank, standardise
from diffalign.advantages.drcm import value_loss
from diffalign.objectives import policy_gradient_loss, ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.mixture import MixturePolicy
from diffalign.policies.natural import NaturalGradient
from diffalign.policies.noise import NoiseDistribution, NoisePolicy
from diffalign.rollout import Rollout
from diffalign.training.config import ConfigError
from diffalign.training.noise_config import NoiseConfig
from diffalign.training.state import load_optimiser, optimiser_tensors

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
        start: what a mixture's first samples are drawn from; N(0, I) by default.
    """

    def __init__(
        self, latent: Sequence[int], config: NoiseConfig, start: NoiseDistribution | None = None
    ) -> None:
        self.config: Final = config
        self.policy: NoisePolicy | MixturePolicy = (
            MixturePolicy(latent, config.first, config.correlation, config.basis, start)
            if config.components
            else NoisePolicy(latent, config.basis, config.std)
        )
        if config.optimiser == "natural":
            self.optimiser: torch.optim.Optimizer = NaturalGradient(self.policy, config.learning_rate)
        else:
            self.optimiser = torch.optim.AdamW(self.policy.parameters(), lr=config.learning_rate)
        self._modules: dict[str, nn.Module] = {"policy": self.policy}
        self._optimisers: dict[str, torch.optim.Optimizer] = {"optimiser": self.optimiser}
        if config.advantage == "drcm":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(config.seed)
                self.value = ValueNet(self.distribution().mean.numel())
            self.value_optimiser = torch.optim.AdamW(self.value.parameters(), lr=config.value_learning_rate)
            self._modules["value"] = self.value
            self._optimisers["value_optimiser"] = self.value_optimiser
        self.steps = 0
        self.rewards = torch.empty(0)
        # RCA reads all samples so far, DRCM the distribution of each update
        self.x_T = torch.empty(0, *self.policy.latent)
        self.previous = self.distribution()
        self.means = self.stds = torch.empty(0, *self.previous.mean.shape)

    @property
    def best(self) -> float:
        """The greatest reward so far."""
        return float(self.rewards.max()) if len(self.rewards) else float("-inf")

    @property
    def queries(self) -> int:
        """Reward queries so far."""
        return len(self.rewards)

    def distribution(self) -> NoiseDistribution:
        """A copy of the current distribution, without gradient."""
        with torch.no_grad():
            now = self.policy()
            weights = None if now.weights is None else now.weights.clone()
            return replace(now, mean=now.mean.clone(), std=now.std.clone(), weights=weights)

    def ask(self) -> range:
        """The numbers of the samples that the next update wants."""
        batch = self.config.batch if self.queries else self.config.first
        return range(self.queries, min(self.queries + batch, self.config.queries))

    def tell(self, rollout: Rollout, rewards: Tensor) -> tuple[float, Diagnostics]:
        """Learns from samples of `distribution()` and their rewards `(B,)`; returns loss and diagnostics."""
        config, current = self.config, self.distribution()
        self.rewards = torch.cat([self.rewards, rewards])
        if config.history:
            self.x_T = torch.cat([self.x_T, rollout.x_T])
        if config.advantage == "drcm":
            self.means = torch.cat([self.means, current.mean[None]])
            self.stds = torch.cat([self.stds, current.std[None]])
        advantage = self._calibrate(len(rewards))[:, None]
        x_T = self.x_T if config.history else rollout.x_T
        # RCA's reference is the policy of the previous step
        old_log_prob = self.previous.log_prob(x_T) if config.history else rollout.log_prob
        if isinstance(self.policy, MixturePolicy) and not self.policy.grown:
            self.policy.grow(x_T)
            old_log_prob = self.distribution().log_prob(x_T)  # as if each came from its own component
        log_prob = self.policy().log_prob(x_T)
        if config.clip_range:
            loss, diagnostics = ppo_loss(log_prob, old_log_prob, advantage, clip_range=config.clip_range)
        else:
            loss, diagnostics = policy_gradient_loss(log_prob, old_log_prob, advantage)
        self.optimiser.zero_grad()
        loss.backward()
        self.previous = current
        self.optimiser.step()
        self.steps += 1
        return loss.item(), diagnostics

    def _calibrate(self, newest: int) -> Tensor:
        """Advantages of the samples that the update reads: all so far, or the `newest`."""
        used = slice(None) if self.config.history else slice(-newest, None)
        if self.config.advantage == "drcm":
            return self._dynamic_calibration()[used]
        rewards = self.rewards[used]
        return rewards if self.config.advantage == "none" else CALIBRATIONS[self.config.advantage](rewards)

    def _dynamic_calibration(self) -> Tensor:
        """r* = r − V(μ, σ) of all samples so far, r standardised; then V learns them (eqs. 9–10)."""
        rewards = standardise(self.rewards)
        update = torch.arange(len(self.rewards)) // self.config.batch  # that each sample was drawn for
        with torch.no_grad():
            expected = self.value(self.means, self.stds)[update]
        for _ in range(self.config.value_updates):
            self.value_optimiser.zero_grad()
            value_loss(self.value(self.means, self.stds)[update], rewards).backward()
            self.value_optimiser.step()
        return rewards - expected

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything that `load` needs to go on to the same result: tensors and strings."""
        tensors = {
            "x_T": self.x_T,
            "rewards": self.rewards,
            "means": self.means,
            "stds": self.stds,
        }
        if self.config.history:
            tensors |= {"previous.mean": self.previous.mean, "previous.std": self.previous.std}
        for prefix, module in self._modules.items():
            tensors |= {f"{prefix}.{name}": value.detach() for name, value in module.state_dict().items()}
        for prefix, optimiser in self._optimisers.items():
            tensors |= optimiser_tensors(prefix, optimiser)
        return tensors, {"steps": str(self.steps), "learner": self._identity()}

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
        self.x_T, self.rewards = tensors["x_T"], tensors["rewards"]
        self.means, self.stds = tensors["means"], tensors["stds"]
        self.steps = int(metadata["steps"])
        if self.config.history:
            self.previous = replace(self.previous, mean=tensors["previous.mean"], std=tensors["previous.std"])
        for prefix, module in self._modules.items():
            module.load_state_dict({n: tensors[f"{prefix}.{n}"] for n in module.state_dict()})
        for prefix, optimiser in self._optimisers.items():
            load_optimiser(prefix, optimiser, tensors)

    def _identity(self) -> str:
        return json.dumps({"latent": self.policy.latent, **asdict(self.config)})
