import pytest
import torch

from diffalign.diffusion import PipelineError
from diffalign.learners.distil import distil
from diffalign.policies.gaussian_generator import GaussianGenerator, GaussianShape
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.fields import ConfigError
from tests.toys import WIDTH, sides


def test_what_cannot_be_learned_from_is_refused() -> None:
    generator = GaussianGenerator(GaussianShape((1, 4, 4), WIDTH), sides)
    with pytest.raises(ConfigError, match="no learned noise"):
        next(distil(generator, {}))
    with pytest.raises(ConfigError, match="has shape"):
        next(distil(generator, {"left": NoiseDistribution.standard((2, 4, 4))}))


def test_a_loss_that_is_no_number_is_refused() -> None:
    generator = GaussianGenerator(GaussianShape((1, 4, 4), WIDTH), lambda prompt: sides(prompt) * torch.nan)
    with pytest.raises(PipelineError, match="1 of 1 losses hold values that are no numbers"):
        next(distil(generator, {"left": NoiseDistribution.standard((1, 4, 4))}))
