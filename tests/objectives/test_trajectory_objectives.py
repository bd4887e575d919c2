"""Identities between the objectives."""

import math

import pytest
import torch
from torch import Tensor

from diffalign.objectives import dpo_loss, dpok_loss, gaussian_kl, policy_gradient_loss, ppo_loss


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(6, 4, generator=generator).mul(0.01).requires_grad_()
    old = log_prob.detach() + 1e-4 * torch.randn(6, 4, generator=generator)
    return log_prob, old, torch.randn(6, 4, generator=generator)


def gradient(loss: Tensor, log_prob: Tensor) -> Tensor:
    return torch.autograd.grad(loss, log_prob)[0]


def test_ppo_at_ratio_1_is_pg(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    log_prob, _, advantage = batch
    here = log_prob.detach().clone()
    ppo = ppo_loss(log_prob, here, advantage, clip_range=1e-4)[0]
    pg = policy_gradient_loss(log_prob, here, advantage)[0]
    assert torch.equal(gradient(ppo, log_prob), gradient(pg, log_prob))


def test_dpok_without_kl_is_ppo(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    log_prob, old, advantage = batch
    kl = torch.rand(6, 4)
    dpok = dpok_loss(log_prob, old, advantage, kl, clip_range=1e-4, alpha=1.0, beta=0.0)[0]
    ppo = ppo_loss(log_prob, old, advantage, clip_range=1e-4)[0]
    assert torch.equal(gradient(dpok, log_prob), gradient(ppo, log_prob))
    more = dpok_loss(log_prob, old, advantage, kl, clip_range=1e-4, alpha=10.0, beta=0.5)[0]
    torch.testing.assert_close(more, 10 * ppo + 0.5 * kl.mean())


def test_kl_is_that_of_torch() -> None:
    a, b = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    normal = torch.distributions.Normal
    expected = torch.distributions.kl_divergence(normal(a, 0.3), normal(b, 0.3)).flatten(1).mean(1)
    torch.testing.assert_close(gaussian_kl(a, b, 0.3), expected)
    with pytest.raises(ValueError, match="one shape"):
        gaussian_kl(a, b[:1], 0.3)


def test_dpo_by_hand_and_where_it_pushes() -> None:
    log_prob = torch.tensor([[0.2], [0.1], [0.0], [0.3]], requires_grad=True)
    loss, _ = dpo_loss(log_prob, torch.zeros(4, 1), beta=2.0)
    margins = [2 * (0.2 - 0.0), 2 * (0.1 - 0.3)]
    expected = sum(math.log1p(math.exp(-margin)) for margin in margins) / 2
    assert loss.item() == pytest.approx(expected)
    pushed = gradient(loss, log_prob)
    assert (pushed[:2] < 0).all() and (pushed[2:] > 0).all()  # winners up, losers down
    with pytest.raises(ValueError, match="pairs"):
        dpo_loss(log_prob[:3], torch.zeros(3, 1), beta=1.0)
