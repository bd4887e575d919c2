"""What every learner of a noise generator does: prompts in turn, one generator for all of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from diffalign.files import GENERATOR
from diffalign.learners.contract import Learner, Request
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.prompts.sampling import prompts_in_turn
from diffalign.rollout import Environment, Rollout, collect, repeated
from diffalign.settings.amortised import AmortisedConfig


class AmortisedLearner(Learner):
    """A generator that learns from a set of prompts."""

    config: AmortisedConfig
    learned, artefact = "learned noise", GENERATOR

    def __init__(
        self, environment: Environment, prompts: Sequence[str], config: Any, generator: NoiseGenerator
    ) -> None:
        self.generator = generator
        super().__init__(environment, prompts, config, generator.metadata)

    @property
    def queries(self) -> int:
        return self.rounds * self.config.prompts_per_round * self.config.samples_per_prompt

    def ask(self) -> Request:
        """The prompts of the next round in turn, several samples each."""
        config, samples = self.config, self.config.samples_per_prompt
        visits = range(self.rounds * config.prompts_per_round, (self.rounds + 1) * config.prompts_per_round)
        prompts = prompts_in_turn(self.prompts, visits, config.seed)
        numbers = range(visits.start * samples, visits.stop * samples)
        return Request(numbers, repeated(prompts, samples))

    def sample(self, request: Request) -> Iterator[Rollout]:
        """A batch a prompt, from its distribution."""
        samples = self.config.samples_per_prompt
        for start in range(0, len(request.groups), samples):
            prompt, numbers = request.prompts[start], request.groups[start : start + samples]
            noise = self.exploring(prompt)
            yield collect(noise, self.environment, prompt, numbers, seed=self.config.seed)

    @torch.no_grad()
    def exploring(self, prompt: str) -> NoiseDistribution:
        """What `prompt`'s next samples are drawn from, without gradient."""
        return self.generator(prompt)

    @torch.no_grad()
    def divergence(self, prompts: Sequence[str]) -> float:
        """Mean divergence of the noise of a round's prompts, one a sample, from the first policy, in nats."""
        visited = prompts[:: self.config.samples_per_prompt]
        return sum(float(self.generator.divergence(self.generator(p))) for p in visited) / len(visited)

    @torch.no_grad()
    def noise(self, prompt: str) -> NoiseDistribution:
        return self.generator(prompt)

    def result(self) -> NoiseGenerator:
        self.generator.metadata = self.provenance()
        return self.generator

    def record(self) -> dict[str, str | int | float | None]:
        return {"generator": GENERATOR}
