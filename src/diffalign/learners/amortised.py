"""What every learner of a noise generator does: prompts in turn, one generator for all of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import torch
from torch import Tensor

from diffalign.diffusion import Sampler
from diffalign.diffusion.probe import prompt_states
from diffalign.files import GENERATOR
from diffalign.learners.contract import Learner, Request
from diffalign.policies.basis import basis_on
from diffalign.policies.generator import NoiseGenerator
from diffalign.policies.noise import NoiseDistribution
from diffalign.prompts.sampling import prompts_in_turn
from diffalign.rollout import Environment, Rollout, collect, repeated
from diffalign.settings.amortised import AmortisedConfig
from diffalign.settings.fields import ConfigError, pick

G = TypeVar("G", bound=NoiseGenerator)


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
        samples, seed = self.config.samples_per_prompt, self.config.seed
        for start in range(0, len(request.groups), samples):
            prompt, numbers = request.prompts[start], request.groups[start : start + samples]
            yield collect(self.exploring(prompt), self.environment, prompt, numbers, seed=seed)

    def exploring(self, prompt: str) -> NoiseDistribution:
        """What `prompt`'s next samples are drawn from, without gradient."""
        return self.noise(prompt)

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


def make_generator(
    kind: type[G], sampler: Sampler, prompts: Sequence[str], config: Any, metadata: Mapping[str, str]
) -> G:
    """A generator of the shape that latents, prompts and settings give it.

    Raises:
        ConfigError: if the settings do not fit the latents.
        PipelineError: if the pipeline's prompts cannot be read.
    """

    def states(prompt: str) -> Tensor:
        return prompt_states(sampler.pipeline, prompt, **sampler.given)

    given = {**asdict(config), "latent": sampler.latent_shape, "prompts": len(prompts)}
    given["text_width"] = states(prompts[0]).shape[-1]
    if "basis" in given:
        given["basis"] = basis_on(sampler.grid, given["basis"])
    given["width"] = given.get("hidden_size")  # as files of generators call it
    try:
        return kind(pick(kind.shape_type, given), states, metadata, seed=config.seed)
    except ValueError as error:
        raise ConfigError(str(error)) from error
