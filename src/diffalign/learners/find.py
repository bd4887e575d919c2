"""The learner of one prompt's initial noise (FIND): ask for samples, tell it their rewards."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from diffalign.advantages import ValueNet, leave_one_out, rank, standardise
from diffalign.advantages.drcm import value_loss
from diffalign.diffusion import Sampler
from diffalign.files import NOISE
from diffalign.learners.contract import Learner, Request, Update, check_rewards
from diffalign.learners.optimisers import left_out, take_step
from diffalign.objectives import policy_gradient_loss, ppo_loss
from diffalign.policies.basis import basis_on
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.mixture import MixturePolicy
from diffalign.policies.natural import NaturalGradient
from diffalign.policies.noise import NoiseDistribution, NoisePolicy
from diffalign.rollout import Environment, Rollout, collect
from diffalign.settings.fields import ConfigError
from diffalign.settings.find import FindConfig

CALIBRATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "rank": rank,
    "leave-one-out": leave_one_out,
    "standardise": standardise,
}


class FindLearner(Learner):
    """Policy, calibration and optimiser of one prompt's initial noise.

    Arguments:
        environment, config, metadata: as of `Learner`.
        prompts: the one prompt.
        start: what a mixture's first samples are drawn from; N(0, I) by default.

    Raises:
        ConfigError: if there is not one prompt, or the basis does not fit the latents.
    """

    config: FindConfig
    learned, artefact, one_prompt = "learned noise", NOISE, True
    remembered: tuple[str, ...] = "x_T", "rewards", "means", "stds", "policy", "optimiser"

    def __init__(
        self,
        environment: Environment,
        prompts: Sequence[str],
        config: FindConfig,
        metadata: Mapping[str, str] | None = None,
        start: NoiseDistribution | None = None,
    ) -> None:
        super().__init__(environment, prompts, config, metadata)
        latent, basis = environment.latent_shape, basis_on(environment.grid, config.basis)
        self.policy: NoisePolicy | MixturePolicy
        try:
            if config.components:
                self.policy = MixturePolicy(latent, config.first, config.correlation, basis, start)
            else:
                self.policy = NoisePolicy(latent, basis, config.std)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.optimiser: torch.optim.Optimizer
        if config.optimiser == "natural":
            self.optimiser = NaturalGradient(self.policy, config.learning_rate)
        else:
            self.optimiser = torch.optim.AdamW(
                self.policy.parameters(), lr=config.learning_rate, weight_decay=0.0
            )
        if config.advantage == "drcm":
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(config.seed)
                self.value = ValueNet(self.distribution().mean.numel())
            self.value_optimiser = torch.optim.AdamW(self.value.parameters(), lr=config.value_learning_rate)
            self.remembered += ("value", "value_optimiser")
        self.rewards = torch.empty(0)
        # RCA reads all samples so far, DRCM the distribution of each update
        self.x_T = torch.empty(0, *latent)
        self.previous = self.distribution()
        self.means = self.stds = torch.empty(0, *self.previous.mean.shape)

    @property
    def queries(self) -> int:
        return len(self.rewards)

    def distribution(self) -> NoiseDistribution:
        """A copy of the current distribution, without gradient."""
        with torch.no_grad():
            now = self.policy()
            weights = None if now.weights is None else now.weights.clone()
            return replace(now, mean=now.mean.clone(), std=now.std.clone(), weights=weights)

    def ask(self) -> Request:
        """A mixture's centres first, then a batch an update."""
        return self.next_samples(self.config.batch if self.queries else self.config.first)

    def sample(self, request: Request) -> Iterator[Rollout]:
        """From the current distribution."""
        config, size = self.config, self.environment.batch_size
        current = self.distribution(), self.environment, self.prompts[0]
        for start in range(0, len(request.groups), size):
            numbers = request.groups[start : start + size]
            yield collect(*current, numbers, seed=config.seed, antithetic=config.antithetic)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Calibrates the rewards and takes one step."""
        check_rewards(rollout, rewards)
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
        taken = take_step(self.optimiser, list(self.policy.parameters()))
        self.rounds += 1
        self.optimiser_steps += taken
        learned = self.distribution()
        return self.update(
            rollout,
            rewards,
            loss.item() if taken else None,
            diagnostics if taken else None,
            selected=len(x_T),
            optimiser_steps=int(taken),
            figures={
                "mean_norm": float(learned.center().norm()),
                "std_mean": float(learned.std.mean()),
                "effective_components": learned.effective_components(),
                "kl_to_standard": float(learned.kl()),
            },
            warning=left_out(self.rounds, int(taken), 1),
        )

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
            expected: Tensor = self.value(self.means, self.stds)[update]
        for _ in range(self.config.value_updates):
            self.value_optimiser.zero_grad()
            value_loss(self.value(self.means, self.stds)[update], rewards).backward()
            take_step(self.value_optimiser, list(self.value.parameters()))
        return rewards - expected

    def tensors(self) -> dict[str, Tensor]:
        tensors = super().tensors()
        if self.config.history:
            tensors |= {"previous.mean": self.previous.mean, "previous.std": self.previous.std}
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        super().restore(tensors, strings)
        if self.config.history:
            self.previous = replace(self.previous, mean=tensors["previous.mean"], std=tensors["previous.std"])

    def result(self) -> NoiseDistribution:
        return replace(self.noise(self.prompts[0]), metadata=self.provenance())

    def noise(self, prompt: str) -> NoiseDistribution:
        noise, diversity = self.distribution(), self.config.diversity
        return noise if diversity is None or noise.weights is None else noise.with_diversity(diversity)


def build(
    sampler: Sampler, prompts: Sequence[str], config: FindConfig, metadata: Mapping[str, str]
) -> FindLearner:
    """A learner that starts from N(0, I), or from the generator that `config.start` names."""
    if not config.start:
        return FindLearner(sampler, prompts, config, metadata)
    generator = NoiseGenerator.load(config.start, sampler.pipeline)
    with torch.no_grad():
        start = generator.start(prompts[0], config.first)
    return FindLearner(sampler, prompts, config, {**metadata, "start": generator.fingerprint()}, start)
