"""A Gaussian process over prompts: against its textbook formula, and what it makes of rewards."""

import torch

from diffalign.advantages.process import posterior


def test_values_are_the_posterior_mean() -> None:
    torch.manual_seed(0)
    features = torch.nn.functional.normalize(torch.randn(6, 3), dim=1)
    gram, noise = torch.exp(-torch.cdist(features, features).square()), 0.2
    counts = torch.randint(0, 4, (6, 5)).float()
    sums = torch.randn(6, 5) * counts
    values = gram @ posterior(gram, sums, counts, noise)

    # b and q jointly: b has a flat prior, so that a very wide one stands for it
    tried = counts > 0
    cells = tried.nonzero()
    means = (sums / counts.clamp_min(1))[tried]
    same_place = (cells[:, None, 1] == cells[None, :, 1]).float()
    same_prompt = (cells[:, None, 0] == cells[None, :, 0]).float()
    signal = (1 - noise) * gram[cells[:, 0]][:, cells[:, 0]] * same_place
    covariance = (signal + 1e4 * same_prompt + torch.diag(noise / counts[tried])).double()
    solved = torch.linalg.solve(covariance, means.double()).float()
    for place in range(5):
        own = (1 - noise) * gram[:, cells[:, 0]] * (cells[:, 1] == place)
        torch.testing.assert_close(values[:, place], own @ solved, atol=0.02, rtol=0)


def test_what_was_tried_nowhere_is_worth_nothing() -> None:
    counts = torch.tensor([[2.0, 0.0], [3.0, 0.0]])
    weights = posterior(torch.eye(2), counts * 1.5, counts, 0.5)
    assert torch.equal(weights[:, 1], torch.zeros(2))
