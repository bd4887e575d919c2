import pytest
import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.zero_order import ZeroOrder
from diffalign.loop import train
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 8, 8)


def test_neighbours_are_typical_noise() -> None:
    config = SearchConfig("zero-order", queries=600)
    search = ZeroOrder(Toy(LATENT, lambda x_T, prompt: x_T.clone()), ["p"], config)
    seen = [round.images for round in train(search, lambda images, prompts: torch.zeros(len(images)))]
    assert torch.cat(seen).std() == pytest.approx(1, abs=0.05)


def test_neighbours_are_as_near_as_published() -> None:
    """At a cosine of 0.95 from the pivot, Ma et al. (2025)."""
    config = SearchConfig("zero-order", queries=30, keep=1)
    search = ZeroOrder(Toy((4, 64, 64)), ["p"], config)
    first, around = (round.images.flatten(1) for round in train(search, lambda x, p: x.flatten(1).mean(1)))
    pivot = first[first.mean(1).argmax()]
    cosines = torch.nn.functional.cosine_similarity(around, pivot[None])
    torch.testing.assert_close(cosines, torch.full((15,), 0.95), atol=0.01, rtol=0)
    assert 1 / (1 + config.radius**2) ** 0.5 == pytest.approx(0.95, abs=1e-4)


def test_it_moves_to_the_best_of_the_pivot_and_its_neighbours() -> None:
    def first(images: Tensor, prompts: list[str]) -> Tensor:
        return images[:, 0, 0, 0]

    config = SearchConfig("zero-order", queries=8, keep=3, neighbours=4, radius=0.5, seed=2)
    search = ZeroOrder(Toy(LATENT), ["p"], config)
    rounds = train(search, first)
    drawn = next(rounds).images
    torch.testing.assert_close(drawn, seeded_noise(LATENT, 2, "search", range(4)))
    pivot = drawn[drawn[:, 0, 0, 0].argmax()]
    around = (pivot + 0.5 * seeded_noise(LATENT, 2, "search", range(4, 8))) / 1.25**0.5
    torch.testing.assert_close(next(rounds).images, around)
    assert float(search.best.kept_rewards()[0]) == float(torch.cat([drawn, around])[:, 0, 0, 0].max())
