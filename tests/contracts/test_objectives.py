"""What every objective promises: a scalar and its diagnostics, of whatever order of samples."""

import pytest
import torch
from torch import Tensor

from diffalign.objectives.diagnostics import Diagnostics

from .tables import OBJECTIVES

every = pytest.mark.parametrize("name", OBJECTIVES)


def batch(samples: int = 6, decisions: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(samples, decisions, generator=generator)
    old = log_prob + 0.2 * torch.randn(samples, decisions, generator=generator)
    return log_prob.requires_grad_(), old, torch.randn(samples, decisions, generator=generator)


@every
@pytest.mark.parametrize("decisions", [1, 4])
def test_it_returns_a_scalar_and_diagnostics(name: str, decisions: int) -> None:
    log_prob, old, advantage = batch(decisions=decisions)
    loss, diagnostics = OBJECTIVES[name](log_prob, old, advantage)
    assert loss.shape == () and loss.isfinite() and isinstance(diagnostics, Diagnostics)
    assert all(type(value) is float for value in vars(diagnostics).values())
    loss.backward()
    assert log_prob.grad is not None and log_prob.grad.isfinite().all() and log_prob.grad.abs().max() > 0


@every
def test_before_the_first_update_the_ratio_is_1(name: str) -> None:
    log_prob, _, advantage = batch()
    _, diagnostics = OBJECTIVES[name](log_prob, log_prob.detach().clone(), advantage)
    assert diagnostics == Diagnostics(0.0, 0.0, 0.0)


@every
def test_the_order_of_pairs_does_not_matter(name: str) -> None:
    log_prob, old, advantage = (part.detach() for part in batch())
    order = torch.tensor([2, 0, 1, 5, 3, 4])  # winners stay in the first half
    one, _ = OBJECTIVES[name](log_prob, old, advantage)
    other, _ = OBJECTIVES[name](log_prob[order], old[order], advantage[order])
    torch.testing.assert_close(one, other)


@every
def test_it_is_the_mean_of_its_parts(name: str) -> None:
    log_prob, old, advantage = (part.detach() for part in batch(8))
    whole, _ = OBJECTIVES[name](log_prob, old, advantage)
    rows = [[0, 1, 4, 5], [2, 3, 6, 7]]  # two pairs each
    parts = [OBJECTIVES[name](log_prob[i], old[i], advantage[i])[0] for i in rows]
    torch.testing.assert_close(whole, torch.stack(parts).mean())


@every
def test_a_step_against_the_gradient_lowers_it(name: str) -> None:
    log_prob, old, advantage = batch()
    loss, _ = OBJECTIVES[name](log_prob, old, advantage)
    (slope,) = torch.autograd.grad(loss, log_prob)
    lower, _ = OBJECTIVES[name](log_prob - 1e-3 * slope, old, advantage)
    assert lower < loss


@every
@pytest.mark.parametrize("wrong", [(6,), (6, 1), (4, 4)])
def test_shapes_that_would_broadcast_are_refused(name: str, wrong: tuple[int, ...]) -> None:
    log_prob, old, advantage = batch()
    with pytest.raises(ValueError, match=r"must all be \(B, K\), not"):
        OBJECTIVES[name](log_prob, old[: wrong[0], 0] if len(wrong) == 1 else torch.zeros(wrong), advantage)
