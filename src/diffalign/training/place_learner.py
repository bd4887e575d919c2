"""The learner of a `PlaceGenerator`: rewards become a Gaussian process's values of places."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.advantages.process import posterior
from diffalign.objectives.diagnostics import Diagnostics, diagnose
from diffalign.policies.noise import NoiseDistribution
from diffalign.policies.place_generator import PlaceGenerator
from diffalign.rollout import Rollout
from diffalign.training.config import ConfigError
from diffalign.training.generating import GeneratorLearner
from diffalign.training.generator_config import GeneratorConfig

NOISES = 0.02, 0.98  # bounds of the share of a reward's variance that prompt and place do not decide
FIRST_NOISE, REPETITIONS = 0.1, 20  # a guess of it, which counts as much as so many repetitions
ROUNDING = 1e-13  # of rewards' squares, below which a variance is none


class PlaceLearner(GeneratorLearner):
    """What each prompt's pictures from each place earned so far.

    While it learns, samples come from more places (`explore`) than those of the finished generator.

    Attributes:
        sums, counts: of rewards, `(P, K)`, float64.
        squares: of rewards, likewise.
    """

    generator: PlaceGenerator

    def __init__(self, generator: PlaceGenerator, prompts: Sequence[str], config: GeneratorConfig) -> None:
        super().__init__(generator, prompts, config)
        visits = config.rounds * config.prompts_per_round
        if config.samples_per_prompt * math.ceil(visits / len(self.prompts)) < 2:
            raise ConfigError(
                f"{visits} samples of {len(self.prompts)} prompts leave no prompt with two to compare; "
                "raise rounds, prompts_per_round or samples_per_prompt"
            )
        generator.learn_from(self.prompts)
        size = len(self.prompts), generator.shape.components
        self.sums, self.counts = torch.zeros(size).double(), torch.zeros(size).double()
        self.squares = torch.zeros(size).double()

    @torch.no_grad()
    def distribution(self, prompt: str) -> NoiseDistribution:
        """From `explore` places: those that are thought good are tried more often."""
        return self.generator(prompt, self.config.explore * self.generator.shape.components)

    @torch.no_grad()
    def tell(self, rollouts: Sequence[Rollout], rewards: Tensor) -> tuple[float, Diagnostics]:
        """In closed form: the process's posterior of all rewards so far; the loss is minus what the next
        samples are expected to earn above their prompt's mean, in standard deviations."""
        rows = {prompt: row for row, prompt in enumerate(self.prompts)}
        for rollout, own in zip(
            rollouts, rewards.double().split([len(r.x_T) for r in rollouts]), strict=True
        ):
            row, places = rows[rollout.prompts[0]], self.generator.nearest(rollout.x_T)
            self.sums[row].index_add_(0, places, own)
            self.counts[row].index_add_(0, places, torch.ones_like(own))
            self.squares[row].index_add_(0, places, own.square())
        scale = self._learn()
        elements, expected, log_ratio = math.prod(self.generator.shape.latent), [], []
        for rollout in rollouts:
            noise = self.distribution(rollout.prompts[0])
            assert noise.weights is not None
            expected.append(float(noise.weights @ self.generator.values(rollout.prompts[0])) / scale)
            log_ratio.append(elements * (noise.log_prob(rollout.x_T) - rollout.log_prob))
        self.round += 1
        return -sum(expected) / len(expected), diagnose(torch.cat(log_ratio))

    def _learn(self) -> float:
        """Sets the generator's values; returns the rewards' standard deviation within prompts."""
        squares, tried = self.squares.sum(), self.counts.sum(1)
        within = squares - (self.sums.sum(1).square() / tried.clamp_min(1)).sum()
        variance = float(within / (tried - 1).clamp_min(0).sum().clamp_min(1))
        if variance <= ROUNDING * float(squares / tried.sum()):  # rewards that hardly differ teach nothing
            self.generator.coefficients.zero_()
            return 1.0
        # what is left where prompt and place are the same; of few repetitions it is hardly known
        again = float((self.counts - 1).clamp_min(0).sum())
        rest = float(squares - (self.sums.square() / self.counts.clamp_min(1)).sum()) / variance
        noise = (rest + FIRST_NOISE * REPETITIONS) / (again + REPETITIONS)
        scale = math.sqrt(variance)
        weights = posterior(
            self.generator.kernel(self.generator.features),
            (self.sums / scale).float(),
            self.counts.float(),
            min(max(noise, NOISES[0]), NOISES[1]),
        )
        self.generator.coefficients.copy_(scale * weights)
        return scale

    def tensors(self) -> dict[str, Tensor]:
        """The generator's, and the rewards so far."""
        generator = {f"generator.{name}": value for name, value in self.generator.state_dict().items()}
        return {**generator, "sums": self.sums, "counts": self.counts, "squares": self.squares}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `tensors` returned."""
        names = self.generator.state_dict()
        self.generator.load_state_dict({name: tensors[f"generator.{name}"] for name in names})
        self.sums, self.counts = tensors["sums"].clone(), tensors["counts"].clone()
        self.squares = tensors["squares"].clone()
