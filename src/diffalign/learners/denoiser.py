"""The learner of a denoiser (DDPO, PG, DPOK, DPO, B²-DiffuRL) over a set of prompts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from diffalign.advantages.contrast import couples
from diffalign.advantages.contrast import units as units_of
from diffalign.advantages.running import RunningStatistics
from diffalign.diffusion import Sampler
from diffalign.diffusion.memory import Fitting
from diffalign.diffusion.pipeline import denoiser, denoiser_name
from diffalign.diffusion.sharding import DividedDenoiser
from diffalign.diffusion.transition import gaussian_log_prob
from diffalign.files import DENOISER, LORA, replacing_folder
from diffalign.learners.contract import Learner, Request, Update, check_rewards
from diffalign.learners.decisions import OBJECTIVES, Decision
from diffalign.learners.optimisers import left_out, make_adamw, take_step
from diffalign.learners.processes import Processes, divide
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.prompts.sampling import prompts_in_turn
from diffalign.rollout import Rollout, collect_trajectories, repeated
from diffalign.settings.fields import ConfigError
from diffalign.settings.tune import TuneConfig
from diffalign.strategies import INTERVALS


class DenoiserLearner(Learner):
    """Policy, statistics and optimiser of a denoiser over a set of prompts.

    Raises:
        ConfigError: if there are no prompts, too few samples for them, or the settings do not fit the policy.
    """

    config: TuneConfig
    learned = "tuned model"
    free = ("micro_batch", "gradient_checkpointing", "shard")
    remembered = ("optimiser",)

    def __init__(
        self,
        policy: DenoiserPolicy,
        prompts: Sequence[str],
        config: TuneConfig,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(policy.sampler, prompts, config, metadata)
        if config.interval != "full" and config.first_steps > len(policy.decisions):
            raise ConfigError(
                f"first_steps is {config.first_steps}, but the sampler takes {len(policy.decisions)} "
                "steps with noise; lower it (the papers learn the last 14 of 20 first)"
            )
        if (policy.eta, policy.schedule.sde, policy.rank) != (config.eta, config.sde, config.lora_rank):
            raise ConfigError(
                f"the policy has eta {policy.eta} of {policy.schedule.sde} and rank {policy.rank}, the "
                f"settings say {config.eta} of {config.sde} and {config.lora_rank}"
            )
        self.policy: Final = policy
        self.objective = OBJECTIVES[config.objective]
        self.statistics = RunningStatistics(config.window, config.min_count, spread=config.spread)
        self.parameters = policy.learned()
        self.optimiser = make_adamw(self.parameters, config)
        # half precision loses small gradients unless they are scaled up
        device, half = policy.device, policy.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=half)
        self.processes = Processes.started(device, DividedDenoiser.of(denoiser(policy.sampler.pipeline)))
        self.groups_fitting = Fitting(max(1, self.environment.batch_size // config.branches))
        self.units_fitting = Fitting(max(1, config.micro_batch // self.objective.unit), "--micro-batch")
        #: Weights of the decisions in the loss, counted from the noise.
        self.step_weights = [std**2 if config.step_weights == "variance" else 1.0 for std in policy.stds]
        weigh = policy.schedule.epsilon_weight
        self.epsilon_weights = [weigh(step, config.eta) for step in policy.decisions]
        shards = len(self.ask().shards)
        if shards < self.processes.number:
            raise ConfigError(
                f"{config.samples} samples a round are {shards} shards of work, fewer than the "
                f"{self.processes.number} processes; ask for more samples"
            )
        seen = config.samples * (config.window + 1)
        if config.branches == config.min_count == 1 and seen < 2 * len(self.prompts):
            raise ConfigError(
                f"{config.samples} samples a round of {len(self.prompts)} prompts are less than two of each "
                f"in {config.window + 1} rounds, so that none can be the better one; ask for more samples"
            )
        if self.objective.unit > 1 and config.branches == 1 and config.samples <= len(self.prompts):
            raise ConfigError(
                f"dpo compares samples of one prompt, but {config.samples} samples a round of "
                f"{len(self.prompts)} prompts are one each; ask for more samples, or for branches"
            )

    @property
    def queries(self) -> int:
        return self.rounds * self.config.samples

    def ask(self) -> Request:
        """Groups of branches; prompts come in turn, in an order that the seed determines."""
        config, number = self.config, self.config.samples // self.config.branches
        groups = range(self.rounds * number, (self.rounds + 1) * number)
        each = config.samples_per_prompt
        visits = range(groups.start // each, groups.stop // each)
        prompts = repeated(prompts_in_turn(self.prompts, visits, config.seed), each)
        together = list(range(number))
        if self.objective.unit > 1 and config.branches == 1:  # whose pairs are of two groups
            together = couples(prompts).tolist()
        shards: dict[int, list[int]] = {}
        for position, shard in enumerate(together):
            shards.setdefault(shard, []).append(position)
        return Request(groups, prompts, self.interval(), tuple(map(tuple, shards.values())))

    def interval(self) -> range:
        """The steps that the next round learns, counted from the noise."""
        return INTERVALS[self.config.interval](len(self.policy.decisions), self.rounds, self.config)

    def sample(self, request: Request) -> Iterator[Rollout]:
        """This process's shards, in batches of whole groups."""
        positions = sorted(i for shard in self.processes.share(request.shards) for i in shard)

        def collected(batch: slice) -> Rollout:
            return collect_trajectories(
                self.policy,
                [request.groups[i] for i in positions[batch]],
                [request.prompts[i] for i in positions[batch]],
                request.interval,
                self.config.branches,
                seed=self.config.seed,
                quiet=self.config.interval == "sliding",
            )

        yield from self.groups_fitting.batches(collected, len(positions))

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Learns from this process's part of the samples, and with the others' gradients."""
        check_rewards(rollout, rewards)
        config, request = self.config, self.ask()
        first = request.groups.start * config.branches
        rows = {index - first: row for row, index in enumerate(rollout.indices)}
        gathered = self.processes.gather(list(zip(rows, rewards.tolist(), strict=True)))
        prompts = repeated(request.prompts, config.branches)
        scores = torch.tensor([reward for _, reward in sorted(gathered)])
        advantage = self.statistics.normalise(prompts, scores)
        paired = self.objective.unit > 1
        units = units_of(prompts, advantage, config.branches, config.threshold, paired)
        advantage = advantage.clamp(-config.advantage_clip, config.advantage_clip)
        losses, diagnostics, sizes = list[float](), list[Diagnostics](), list[int]()
        steps = tried = 0
        for batch in self._batches(units):
            local = [tuple(rows[i] for i in unit) for unit in batch if unit[0] in rows]
            loss, one, taken = self._step(rollout, advantage[list(rows)], local, len(batch))
            tried += 1
            if taken:
                losses.append(loss)
                diagnostics.append(one)
                sizes.append(len(batch))
                steps += 1
        self.rounds += 1
        self.optimiser_steps += steps
        selected = sum(len(unit) for unit in units)
        # dpo's ratios are to the pretrained model
        ratio_error = diagnostics[0].max_ratio_error if losses and self.objective.unit == 1 else 0.0
        return Update(
            prompts,
            scores,
            self._forwards(request, selected),
            sum(loss * n for loss, n in zip(losses, sizes, strict=True)) / sum(sizes) if losses else None,
            Diagnostics.mean(diagnostics, sizes) if losses else None,
            selected,
            steps,
            {"interval": len(request.interval), "first_ratio_error": ratio_error},
            self._warning(steps, tried, selected, ratio_error),
        )

    def _batches(self, units: list[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
        """What each optimiser step is made from, shuffled anew in each epoch."""
        config = self.config
        generator = np.random.default_rng([config.seed, self.rounds, 1])
        size = config.update_batch // self.objective.unit
        for _ in range(config.inner_epochs):
            shuffled = [units[i] for i in generator.permutation(len(units))]
            yield from (shuffled[start : start + size] for start in range(0, len(units), size))

    def _forwards(self, request: Request, selected: int) -> int:
        """Of sampling, the steps before the interval once a group, and of learning, its reference too."""
        start, steps = request.interval.start, len(self.policy.timesteps)
        sampled = start * len(request.groups) + (steps - start) * self.config.samples
        learned = self.config.inner_epochs * selected * len(request.interval)
        learned *= 2 if self.objective.pretrained else 1
        return self.policy.sampler.passes * (sampled + learned)

    def _warning(self, steps: int, tried: int, selected: int, ratio_error: float) -> str | None:
        if not selected:
            why = f"no sample passed the threshold of {self.config.threshold}"
            return f"round {self.rounds} made no optimiser step: {why}"
        half = self.scaler.is_enabled()  # which tries scales, and leaves steps out
        mend = "float16's scale is lower now" if half else "lower the learning rate"
        if steps < tried and not (half and steps):
            return left_out(self.rounds, steps, tried, mend)
        first = self.optimiser_steps == steps
        if first and self.objective.clips and ratio_error > self.config.clip_range / 2:
            return (
                f"before the first update the ratio was off 1 by {ratio_error:.1g}: rounding eats into "
                "the clip range; use float32, or a greater clip_range"
            )
        return None

    def _step(
        self, rollout: Rollout, advantage: Tensor, units: list[tuple[int, ...]], number: int
    ) -> tuple[float, Diagnostics, bool]:
        """One optimiser step from `units`, this process's of `number`, and whether it was taken: all samples
        weigh the same."""
        while True:
            try:
                total, seen = self._add_gradients(rollout, advantage, units, number)
                break
            except RuntimeError as error:
                self.units_fitting.halve(error)
        self.processes.add_gradients(self.parameters)
        self.scaler.unscale_(self.optimiser)
        taken = take_step(self.optimiser, self.parameters, self.config.max_grad_norm)
        self.scaler.update()
        gathered = self.processes.gather([(total, seen)])
        parts = [part for _, seen in gathered for part in seen]
        mean = Diagnostics.mean([diagnostics for diagnostics, _ in parts], [size for _, size in parts])
        return sum(loss for loss, _ in gathered), mean, taken

    def _add_gradients(
        self, rollout: Rollout, advantage: Tensor, units: list[tuple[int, ...]], number: int
    ) -> tuple[float, list[tuple[Diagnostics, int]]]:
        """The gradients of the loss of this process's `units`, of `number` in all; loss and diagnostics."""
        self.optimiser.zero_grad(set_to_none=True)
        total, seen, size = 0.0, list[tuple[Diagnostics, int]](), self.units_fitting.size
        for part in (units[i : i + size] for i in range(0, len(units), size)):
            samples = [unit[i] for i in range(len(part[0])) for unit in part]
            for k in range(len(rollout.interval)):
                loss, diagnostics = self._loss(rollout, advantage, samples, k)
                loss = loss * self.step_weights[rollout.interval[k]]
                loss = loss * len(part) / number / len(rollout.interval)
                self.scaler.scale(loss).backward()
                total += loss.item()
                seen.append((diagnostics, len(part)))
        return total, seen

    def _loss(
        self, rollout: Rollout, advantage: Tensor, samples: list[int], k: int
    ) -> tuple[Tensor, Diagnostics]:
        """Of decision k of `samples`."""
        step, prompts = rollout.interval[k], [rollout.prompts[i] for i in samples]
        x_t, x_next = rollout.x[k, samples], rollout.x[k + 1, samples]
        mean, std = self.policy(x_t, step, prompts)
        before = self.policy.pretrained(x_t, step, prompts)[0] if self.objective.pretrained else mean
        log_prob = gaussian_log_prob(x_next, mean, std)[:, None].cpu()
        old, advantages = rollout.log_prob[samples, k : k + 1].cpu(), advantage[samples][:, None]
        decision = Decision(x_next, log_prob, old, advantages, mean, std, before, self.epsilon_weights[step])
        return self.objective.loss(decision, self.config)

    def tensors(self) -> dict[str, Tensor]:
        return {**super().tensors(), **{f"policy.{i}": p.detach() for i, p in enumerate(self.parameters)}}

    def strings(self) -> dict[str, str]:
        scaler = json.dumps(self.scaler.state_dict())
        return {"scaler": scaler, "statistics": self.statistics.state()}

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        super().restore(tensors, strings)
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"policy.{i}"])
        self.scaler.load_state_dict(json.loads(strings["scaler"]))
        self.statistics.load(strings["statistics"])

    def result(self) -> DenoiserPolicy:
        return self.policy

    def save(self, folder: Path) -> Path:
        """Writes lora/, as `pipeline.load_lora_weights` reads it, or all weights as denoiser/."""
        path = folder / (LORA if self.config.lora_rank else DENOISER)
        with replacing_folder(path) as partial:
            self.policy.save(partial)
        return path

    def frozen(self) -> AbstractContextManager[None]:
        return self.policy.frozen()

    def release(self) -> None:
        self.policy.unload()

    def record(self) -> dict[str, str | int | float | None]:
        part = denoiser_name(self.policy.sampler.pipeline)
        return {"lora_rank": self.config.lora_rank, "denoiser": part}


def build(
    sampler: Sampler, prompts: Sequence[str], config: TuneConfig, metadata: Mapping[str, str]
) -> DenoiserLearner:
    """A learner of the sampler's pipeline, which is changed in place, unless the settings do not fit."""
    if config.shard:
        divide(sampler.pipeline, sampler.pipeline.device)
    policy = DenoiserPolicy(
        sampler,
        eta=config.eta,
        sde=config.sde,
        rank=config.lora_rank,
        targets=config.lora_targets,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
    # which makes the decisions, whatever samples
    decided = {} if policy.schedule.flows else {"scheduler": "DDIMScheduler"}
    try:
        return DenoiserLearner(policy, prompts, config, {**metadata, **decided})
    except BaseException:
        policy.unload()
        raise
