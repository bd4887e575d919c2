"""The natural gradient against the Fisher matrix of the policy, taken by automatic differentiation."""

import math

import pytest
import torch
from torch import Tensor

from diffalign.policies import NoisePolicy
from diffalign.policies.natural import MAX_COEFFICIENT, NaturalGradient

LATENT = (1, 3, 4)


def started(std: str) -> NoisePolicy:
    policy = NoisePolicy(LATENT, "dct2", std)
    with torch.no_grad():
        policy.mean.copy_(torch.tensor([[[0.3, -0.5], [0.0, 0.7]]]))
        if std == "learned":
            policy.log_std.copy_(torch.tensor([[[0.1, -0.4], [0.2, 0.0]]]))
    return policy


def fisher(policy: NoisePolicy) -> Tensor:
    """The Hessian of KL(π_θ ‖ π_φ) in φ at φ = θ, which is the Fisher matrix."""
    theta = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()]).double()
    sizes = [parameter.numel() for parameter in policy.parameters()]

    def moments(flat: Tensor) -> tuple[Tensor, Tensor]:
        mean, *rest = flat.split(sizes)
        return mean, rest[0].exp() if rest else (1 - mean.square()).sqrt()

    def kl(phi: Tensor) -> Tensor:
        (m, s), (n, t) = moments(theta), moments(phi)
        return (t.log() - s.log() + (s.square() + (m - n).square()) / (2 * t.square()) - 0.5).sum()

    return torch.autograd.functional.hessian(kl, theta)


@pytest.mark.parametrize("std", ["learned", "preserving"])
def test_a_step_is_the_inverse_fisher_matrix_times_the_gradient(std: str) -> None:
    policy = started(std)
    x_T = torch.randn(5, *LATENT, generator=torch.Generator().manual_seed(0))
    loss = -policy().log_prob(x_T).sum()
    loss.backward()
    before = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
    gradient = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
    NaturalGradient(policy, lr=0.01).step()
    after = torch.cat([parameter.detach().flatten() for parameter in policy.parameters()])
    # log_prob is a mean over the latent's elements
    expected = 0.01 * torch.linalg.solve(fisher(started(std)), gradient.double() * math.prod(LATENT))
    torch.testing.assert_close((before - after).double(), expected, rtol=1e-4, atol=1e-6)


def test_a_preserving_mean_stays_where_its_std_is_real() -> None:
    policy = started("preserving")
    policy.mean.grad = torch.full_like(policy.mean, -1e3)
    NaturalGradient(policy, lr=1.0).step()
    assert policy.mean.max() == MAX_COEFFICIENT
    assert policy().std.min() > 0.3
