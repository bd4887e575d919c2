"""The learner of a denoiser: ask which samples it wants, tell it their trajectories and rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from diffalign.advantages.contrast import best_and_worst, couples, pairs
from diffalign.advantages.running import RunningStatistics
from diffalign.diffusion.transition import gaussian_log_prob
from diffalign.objectives import dpo_loss, dpok_loss, gaussian_kl, policy_gradient_loss, ppo_loss
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.rollout import Trajectories
from diffalign.strategies import Branches, backward_interval, full_interval
from diffalign.training.config import ConfigError
from diffalign.training.processes import Processes
from diffalign.training.state import load_optimiser, optimiser_tensors
from diffalign.training.tune_config import TuneConfig


@dataclass(frozen=True)
class Order:
    """The samples of a round and the steps to learn.

    Attributes:
        groups: the numbers of the groups of branches.
        prompts: one a group.
        parcels: which groups must be sampled by the same process, as places in `groups`.
        interval: the steps, counted from the noise.
    """

    groups: range
    prompts: tuple[str, ...]
    parcels: tuple[tuple[int, ...], ...]
    interval: range


@dataclass(frozen=True)
class Update:
    """What a round's learning did. `loss` and `diagnostics` are means over its samples; none if
    nothing was selected. Prompts and rewards `(B,)` are those of all processes."""

    prompts: tuple[str, ...]
    rewards: Tensor
    selected: int
    optimiser_steps: int
    loss: float
    diagnostics: Diagnostics | None
    first_ratio_error: float  # largest |ρ − 1| before the round's first optimiser step: rounding alone


class Tuner:
    """Policy, statistics and optimiser of a denoiser over a set of prompts.

    Raises:
        ConfigError: if there are no prompts, too few samples for them, or the settings do not fit the policy.
    """

    def __init__(self, policy: DenoiserPolicy, prompts: Sequence[str], config: TuneConfig) -> None:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise ConfigError("tuning needs at least one prompt, none of them empty")
        if config.interval == "backward" and config.first_steps > len(policy.timesteps):
            raise ConfigError(
                f"first_steps is {config.first_steps}, but the sampler takes {len(policy.timesteps)} steps"
            )
        if (policy.eta, policy.rank) != (config.eta, config.lora_rank):
            raise ConfigError(
                f"the policy has eta {policy.eta} and rank {policy.rank}, the settings say {config.eta} and "
                f"{config.lora_rank}"
            )
        self.policy, self.prompts, self.config = policy, tuple(prompts), config
        self.branches: Final = Branches(config.branches)
        self.statistics = RunningStatistics(config.window)
        self.optimiser = _optimiser(policy.learned(), config)
        # half precision loses small gradients unless they are scaled up
        device, half = policy.device, policy.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.processes = Processes(device)
        #: Weights of the decisions in the loss, counted from the noise.
        self.step_weights = [std**2 if config.step_weights == "variance" else 1.0 for std in policy.stds]
        self.round = self.optimiser_steps = 0
        parcels = len(self.ask().parcels)
        if parcels < self.processes.number:
            raise ConfigError(
                f"{config.samples} samples a round are {parcels} parcels of work, fewer than the "
                f"{self.processes.number} processes; ask for more samples"
            )
        seen = config.samples * (config.window + 1)
        if config.branches == 1 and seen < 2 * len(self.prompts):
            raise ConfigError(
                f"{config.samples} samples a round of {len(self.prompts)} prompts are less than two of each "
                f"in {config.window + 1} rounds, so that none can be the better one; ask for more samples"
            )
        if config.objective == "dpo" and config.branches == 1 and config.samples <= len(self.prompts):
            raise ConfigError(
                f"dpo compares samples of one prompt, but {config.samples} samples a round of "
                f"{len(self.prompts)} prompts are one each; ask for more samples, or for branches"
            )

    @property
    def queries(self) -> int:
        """Reward queries so far."""
        return self.round * self.config.samples

    def ask(self) -> Order:
        """What the next round wants; prompts come in turn, in an order that the seed determines."""
        config, number = self.config, self.config.samples // self.config.branches
        groups = range(self.round * number, (self.round + 1) * number)
        prompts = []
        for group in groups:
            turn, place = divmod(group, len(self.prompts))
            order = np.random.default_rng([config.seed, turn]).permutation(len(self.prompts))
            prompts.append(self.prompts[order[place]])
        together = list(range(number))
        if config.objective == "dpo" and config.branches == 1:  # whose pairs are of two groups
            together = couples(prompts).tolist()
        parcels: dict[int, list[int]] = {}
        for place, parcel in enumerate(together):
            parcels.setdefault(parcel, []).append(place)
        return Order(groups, tuple(prompts), tuple(map(tuple, parcels.values())), self.interval())

    def interval(self) -> range:
        """The steps that the next round learns, counted from the noise."""
        steps = len(self.policy.timesteps)
        if self.config.interval == "full":
            return full_interval(steps)
        return backward_interval(steps, self.round, self.config.rounds, self.config.first_steps)

    def tell(self, order: Order, trajectories: Trajectories, rewards: Tensor) -> Update:
        """Learns from the samples that were asked for.

        Arguments:
            order: what was asked for.
            trajectories: this process's part of it.
            rewards: of this part, with shape `(B,)`.
        """
        config, branches = self.config, self.branches.number
        first = order.groups.start * branches
        rows = {index - first: row for row, index in enumerate(trajectories.indices)}
        said = self.processes.gather(list(zip(rows, rewards.tolist(), strict=True)))
        prompts = [prompt for prompt in order.prompts for _ in range(branches)]
        scored = torch.tensor([reward for _, reward in sorted(said)])
        advantage = self.statistics.normalise(prompts, scored)
        units = self._units(prompts, advantage)
        advantage = advantage.clamp(-config.advantage_clip, config.advantage_clip)
        shuffled = np.random.default_rng([config.seed, self.round, 1]).permutation(len(units))
        size = config.update_batch // (2 if config.objective == "dpo" else 1)
        done: list[tuple[float, Diagnostics]] = []
        sizes: list[int] = []
        made = 0
        for start in range(0, len(units), size):
            batch = [units[i] for i in shuffled[start : start + size]]
            own = [tuple(rows[i] for i in unit) for unit in batch if unit[0] in rows]
            scale = self.scaler.get_scale()
            done.append(self._step(trajectories, advantage[list(rows)], own, len(batch)))
            sizes.append(len(batch))
            made += self.scaler.get_scale() >= scale  # a step with infinite gradients is left out
        self.round += 1
        self.optimiser_steps += made
        return Update(
            prompts=tuple(prompts),
            rewards=scored,
            selected=sum(len(unit) for unit in units),
            optimiser_steps=made,
            loss=sum(loss * n for (loss, _), n in zip(done, sizes, strict=True)) / max(1, sum(sizes)),
            diagnostics=Diagnostics.mean([said for _, said in done], sizes) if done else None,
            # dpo's ratios are to the pretrained model
            first_ratio_error=done[0][1].max_ratio_error if done and config.objective != "dpo" else 0.0,
        )

    def _units(self, prompts: Sequence[str], advantage: Tensor) -> list[tuple[int, ...]]:
        """What a loss is made of: samples, or pairs of a winner and a loser."""
        config, group = self.config, torch.arange(len(prompts)) // self.branches.number
        if config.objective == "dpo":
            group = group if config.branches > 1 else couples(prompts)
            return list(zip(*pairs(advantage, group, config.threshold), strict=True))
        if config.branches == 1 and not config.threshold:
            return [(i,) for i in range(len(advantage))]
        return [(i,) for i in best_and_worst(advantage, group, config.threshold)]

    def _step(
        self, trajectories: Trajectories, advantage: Tensor, units: list[tuple[int, ...]], number: int
    ) -> tuple[float, Diagnostics]:
        """One optimiser step from `units`, this process's of `number`: each sample counts alike."""
        config, parameters = self.config, self.policy.learned()
        self.optimiser.zero_grad(set_to_none=True)
        chunk = max(1, config.micro_batch // (2 if config.objective == "dpo" else 1))
        total, seen = 0.0, list[tuple[Diagnostics, int]]()
        for part in (units[i : i + chunk] for i in range(0, len(units), chunk)):
            samples = [unit[place] for place in range(len(part[0])) for unit in part]
            for k in range(len(trajectories.interval)):
                loss, diagnostics = self._loss(trajectories, advantage, samples, k)
                loss = loss * self.step_weights[trajectories.interval[k]]
                loss = loss * len(part) / number / len(trajectories.interval)
                self.scaler.scale(loss).backward()
                total += loss.item()
                seen.append((diagnostics, len(part)))
        self.processes.add_gradients(parameters)
        self.scaler.unscale_(self.optimiser)
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        told = self.processes.gather([(total, seen)])
        every = [one for _, each in told for one in each]
        said = Diagnostics.mean([diagnostics for diagnostics, _ in every], [size for _, size in every])
        return sum(loss for loss, _ in told), said

    def _loss(
        self, trajectories: Trajectories, advantage: Tensor, samples: list[int], k: int
    ) -> tuple[Tensor, Diagnostics]:
        """Of decision k of `samples`."""
        config, step = self.config, trajectories.interval[k]
        x_t, x_next = trajectories.x[k, samples], trajectories.x[k + 1, samples]
        prompts = [trajectories.prompts[i] for i in samples]
        mean, std = self.policy(x_t, step, prompts)
        log_prob = gaussian_log_prob(x_next, mean, std)[:, None].cpu()
        old = trajectories.log_prob[samples, k : k + 1].cpu()
        own = advantage[samples][:, None]
        if config.objective == "pg":
            return policy_gradient_loss(log_prob, old, own)
        if config.objective == "ppo":
            return ppo_loss(log_prob, old, own, clip_range=config.clip_range)
        before, _ = self.policy.pretrained(x_t, step, prompts)
        if config.objective == "dpo":
            reference = gaussian_log_prob(x_next, before, std)[:, None].cpu()
            return dpo_loss(log_prob, reference, beta=config.dpo_beta)
        return dpok_loss(
            log_prob,
            old,
            own,
            gaussian_kl(mean, before, std)[:, None].cpu(),
            clip_range=config.clip_range,
            alpha=config.dpok_alpha,
            beta=config.dpok_beta,
        )

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Everything that `load` needs to go on to the same result: tensors and strings."""
        tensors = {f"policy.{i}": p.detach() for i, p in enumerate(self.policy.learned())}
        tensors |= optimiser_tensors("optimiser", self.optimiser)
        counts = {"round": str(self.round), "optimiser_steps": str(self.optimiser_steps)}
        counts["scaler"] = json.dumps(self.scaler.state_dict())
        return tensors, {**counts, "statistics": self.statistics.state(), "tuner": self._identity()}

    def load(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        """Restores what `state` returned.

        Raises:
            ConfigError: if it is the state of a tuner with other settings.
        """
        if metadata.get("tuner") != self._identity():
            raise ConfigError(
                f"the saved state is that of another tuner, {metadata.get('tuner')}; "
                f"this one's settings are {self._identity()}"
            )
        with torch.no_grad():
            for i, parameter in enumerate(self.policy.learned()):
                parameter.copy_(tensors[f"policy.{i}"])
        load_optimiser("optimiser", self.optimiser, tensors)
        self.round, self.optimiser_steps = int(metadata["round"]), int(metadata["optimiser_steps"])
        self.scaler.load_state_dict(json.loads(metadata["scaler"]))
        self.statistics.load(metadata["statistics"])

    def _identity(self) -> str:
        settings = asdict(self.config)
        for name in ("micro_batch", "gradient_checkpointing"):  # of time and memory alone
            del settings[name]
        return json.dumps({"prompts": self.prompts, **settings})


def _optimiser(parameters: list[torch.nn.Parameter], config: TuneConfig) -> torch.optim.Optimizer:
    """AdamW, or bitsandbytes' with 8-bit moments.

    Raises:
        ConfigError: if bitsandbytes is asked for and not here.
    """
    kind: Any = torch.optim.AdamW
    if config.optimiser == "adamw8bit":
        try:
            kind = import_module("bitsandbytes").optim.AdamW8bit
        except ImportError as error:
            raise ConfigError("optimiser adamw8bit needs bitsandbytes: pip install bitsandbytes") from error
    return kind(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
