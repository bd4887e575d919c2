"""The learner of an `AnchorGenerator`: rewards become a Gaussian process's values of anchors."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffalign.advantages.process import posterior
from diffalign.diffusion import Sampler
from diffalign.learners.amortised import AmortisedLearner, make_generator
from diffalign.learners.contract import Update, check_rewards
from diffalign.objectives.diagnostics import diagnose
from diffalign.policies.anchor_generator import AnchorGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.rollout import Rollout
from diffalign.settings.anchors import AnchorConfig
from diffalign.settings.fields import ConfigError

NOISES = 0.02, 0.98  # bounds of the share of a reward's variance that prompt and anchor do not decide
FIRST_NOISE, REPETITIONS = 0.1, 20  # a guess of it, which counts as much as so many repetitions
ROUNDING = 1e-13  # of rewards' squares, below which a variance is none


class AnchorLearner(AmortisedLearner):
    """What each prompt's pictures from each anchor earned so far.

    While it learns, samples come from more anchors (`explore`) than those of the finished generator.

    Attributes:
        sums, counts: of rewards, `(P, K)`, float64.
        squares: of rewards, likewise.

    Raises:
        ConfigError: if no prompt is sampled twice.
    """

    config: AnchorConfig
    generator: AnchorGenerator
    remembered = "generator", "sums", "counts", "squares"

    def prepare(self) -> None:
        """Features of the prompts, and sums of no rewards yet."""
        config, generator = self.config, self.generator
        visits = config.rounds * config.prompts_per_round
        if config.samples_per_prompt * math.ceil(visits / len(self.prompts)) < 2:
            raise ConfigError(
                f"{visits} samples of {len(self.prompts)} prompts leave no prompt with two to compare; "
                "raise rounds, prompts_per_round or samples_per_prompt"
            )
        generator.learn_from(self.prompts)
        size = len(self.prompts), generator.shape.components
        self.sums, self.counts, self.squares = torch.zeros(3, *size, dtype=torch.float64)

    @torch.no_grad()
    def exploring(self, prompt: str) -> NoiseDistribution:
        """From `explore` anchors: those that are thought good are tried more often."""
        return self.generator(prompt, self.config.explore * self.generator.shape.components)

    @torch.no_grad()
    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """In closed form: the process's posterior of all rewards so far; the loss is minus what the next
        samples are expected to earn above their prompt's mean, in standard deviations."""
        check_rewards(rollout, rewards)
        samples, elements = self.config.samples_per_prompt, math.prod(self.generator.shape.latent)
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        visited, batches = rollout.prompts[::samples], rollout.x_T.split(samples)
        for prompt, x_T, earned in zip(visited, batches, rewards.double().split(samples), strict=True):
            row, anchors = rows[prompt], self.generator.nearest(x_T)
            self.sums[row].index_add_(0, anchors, earned)
            self.counts[row].index_add_(0, anchors, torch.ones_like(earned))
            self.squares[row].index_add_(0, anchors, earned.square())
        scale = self._learn()
        expected, log_ratio = [], []
        for prompt, x_T, old in zip(visited, batches, rollout.log_prob.split(samples), strict=True):
            noise = self.exploring(prompt)
            assert noise.weights is not None
            expected.append(float(noise.weights @ self.generator.values(prompt)) / scale)
            log_ratio.append(elements * (noise.log_prob(x_T) - old))
        self.rounds += 1
        return self.update(
            rollout,
            rewards,
            -sum(expected) / len(expected),
            diagnose(torch.cat(log_ratio)),
            selected=len(rewards),
            figures={"divergence": self.divergence(rollout.prompts)},
        )

    def _learn(self) -> float:
        """Learns the generator's values; returns the rewards' standard deviation within prompts."""
        squares, tried = self.squares.sum(), self.counts.sum(1)
        within = squares - (self.sums.sum(1).square() / tried.clamp_min(1)).sum()
        variance = float(within / (tried - 1).clamp_min(0).sum().clamp_min(1))
        if variance <= ROUNDING * float(squares / tried.sum()):  # rewards that hardly differ teach nothing
            self.generator.coefficients.zero_()
            return 1.0
        # what is left where prompt and anchor are the same; of few repetitions it is hardly known
        repeated = float((self.counts - 1).clamp_min(0).sum())
        rest = float(squares - (self.sums.square() / self.counts.clamp_min(1)).sum()) / variance
        noise = (rest + FIRST_NOISE * REPETITIONS) / (repeated + REPETITIONS)
        scale = math.sqrt(variance)
        weights = posterior(
            self.generator.kernel(self.generator.features),
            (self.sums / scale).float(),
            self.counts.float(),
            min(max(noise, NOISES[0]), NOISES[1]),
        )
        self.generator.coefficients.copy_(scale * weights)
        return scale


def build(
    sampler: Sampler, prompts: Sequence[str], config: AnchorConfig, metadata: Mapping[str, str]
) -> AnchorLearner:
    """A learner to whom all anchors are worth the same; raises what `make_generator` does."""
    generator = make_generator(AnchorGenerator, sampler, prompts, config, metadata)
    return AnchorLearner(sampler, prompts, config, generator)
