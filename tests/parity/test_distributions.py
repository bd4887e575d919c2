"""Densities and divergences are those of torch.distributions."""

import math

import pytest
import torch
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from diffalign.diffusion import seeded_noise
from diffalign.diffusion.transition import gaussian_log_prob
from diffalign.objectives import gaussian_kl
from diffalign.policies import NoiseDistribution
from diffalign.policies.basis import Basis

LATENT = (2, 6, 5)


def gaussian(basis: str = "identity", *components: int) -> NoiseDistribution:
    shape = (*components, *Basis(basis, LATENT).shape)
    generator = torch.Generator().manual_seed(0)
    mean = 0.3 * torch.randn(shape, generator=generator)
    weights = torch.arange(1.0, components[0] + 1) if components else None
    return NoiseDistribution(
        mean,
        0.5 + torch.rand(shape, generator=generator),
        LATENT,
        basis,
        weights=None if weights is None else weights / weights.sum(),
    )


def test_a_gaussians_density_and_divergence() -> None:
    ours = gaussian()
    reference = Independent(Normal(ours.mean, ours.std), 3)
    x_T = seeded_noise(LATENT, 0, "test", range(4))
    torch.testing.assert_close(ours.log_prob(x_T, "sum")[:, 0], reference.log_prob(x_T), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(
        ours.log_prob(x_T)[:, 0], reference.log_prob(x_T) / math.prod(LATENT), rtol=1e-5, atol=1e-5
    )
    standard = Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 3)
    torch.testing.assert_close(ours.kl(), kl_divergence(reference, standard), rtol=1e-5, atol=1e-4)


def test_a_low_frequency_density_is_that_of_the_full_gaussian() -> None:
    ours = gaussian("dct2")
    size = math.prod(LATENT)
    linear = ours.transform(torch.eye(size).view(size, *LATENT)).flatten(1)
    shift = ours.transform(torch.zeros(1, *LATENT)).flatten()
    matrix = (linear - shift).T
    reference = MultivariateNormal(shift, matrix @ matrix.T + 1e-7 * torch.eye(size))
    x_T = seeded_noise(LATENT, 1, "test", range(4))
    torch.testing.assert_close(
        ours.log_prob(x_T, "sum")[:, 0], reference.log_prob(x_T.flatten(1)), rtol=1e-3, atol=1e-2
    )


def test_a_mixtures_density() -> None:
    ours = gaussian("identity", 4)
    assert ours.weights is not None
    reference = MixtureSameFamily(Categorical(ours.weights), Independent(Normal(ours.mean, ours.std), 3))
    x_T = seeded_noise(LATENT, 1, "test", range(5))
    torch.testing.assert_close(ours.log_prob(x_T, "sum")[:, 0], reference.log_prob(x_T), rtol=1e-5, atol=1e-3)


def test_a_mixtures_bound_is_the_mean_divergence_of_its_components() -> None:
    ours = gaussian("identity", 4)
    assert ours.weights is not None
    standard = Independent(Normal(torch.zeros(LATENT), torch.ones(LATENT)), 3)
    each = kl_divergence(Independent(Normal(ours.mean, ours.std), 3), standard)
    torch.testing.assert_close(ours.kl(), ours.weights @ each, rtol=1e-5, atol=1e-4)


def test_a_mixtures_entropy_is_its_effective_number() -> None:
    ours = gaussian("identity", 4)
    assert ours.weights is not None
    expected = float(Categorical(ours.weights).entropy().exp())
    assert ours.effective_components() == pytest.approx(expected)


def test_a_decisions_density() -> None:
    x, mean = torch.randn(2, 5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = Normal(mean, 0.3).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_log_prob(x, mean, 0.3), expected)


def test_the_divergence_of_two_decisions() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    expected = kl_divergence(Normal(a, 0.3), Normal(b, 0.3)).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_kl(a, b, 0.3), expected)
