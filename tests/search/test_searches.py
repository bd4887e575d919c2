from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffalign.policies.noise import NoiseDistribution
from diffalign.search import best_of_n, spectral_evolution, zero_order
from diffalign.search.spectral import low_band, spread

LATENT = (2, 8, 8)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T[:, :1].repeat(1, 3, 1, 1)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    """Of broad areas: what a low band decides."""
    return images[:, 0, :4, :4].mean((1, 2)) - images[:, 0, 4:, 4:].mean((1, 2))


@pytest.mark.parametrize("search", [zero_order, spectral_evolution])
def test_it_finds_more_than_best_of_n(search) -> None:
    def best(algorithm, seed: int) -> float:
        found = algorithm(pictures, LATENT, "p", brightness, 120, keep=2, seed=seed, batch_size=16)
        assert len(found.rewards) == 120 and found.x_T.shape == (2, *LATENT)
        torch.testing.assert_close(found.kept_rewards(), brightness(pictures(found.x_T, "p"), []))
        assert found.kept_rewards()[0] >= found.kept_rewards()[1]
        return float(found.kept_rewards()[0])

    gains = [best(search, seed) - best(best_of_n, seed) for seed in range(5)]
    assert sum(gains) / 5 > 0.2


@pytest.mark.parametrize("search", [zero_order, spectral_evolution])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_batch_size_changes_nothing(search, batch_size: int) -> None:
    whole = search(pictures, LATENT, "p", brightness, 40, keep=2, seed=3, batch_size=64)
    parts = search(pictures, LATENT, "p", brightness, 40, keep=2, seed=3, batch_size=batch_size)
    assert torch.equal(whole.x_T, parts.x_T) and whole.indices == parts.indices


def test_neighbours_are_typical_noise() -> None:
    seen = []

    def watched(x_T: Tensor, prompt: str) -> Tensor:
        seen.append(x_T)
        return pictures(x_T, prompt)

    zero_order(
        watched, LATENT, "p", lambda images, prompts: torch.zeros(len(images)), 600, seed=0, batch_size=64
    )
    assert torch.cat(seen).std() == pytest.approx(1, abs=0.05)


def test_previews_are_scored_and_the_best_are_made_in_full() -> None:
    full, cheap = [], []

    def sampler(into: list[int]):
        def sample(x_T: Tensor, prompt: str) -> Tensor:
            into.append(len(x_T))
            return pictures(x_T, prompt)

        return sample

    spectral_evolution(
        sampler(full), LATENT, "p", brightness, 50, preview=sampler(cheap), keep=4, seed=0, batch_size=8
    )
    assert sum(full) == 4 and sum(cheap) == 46


@pytest.mark.parametrize(("n", "keep"), [(2, 1), (32, 1), (39, 8)])
def test_a_last_chunk_of_one_candidate_is_no_fault(n: int, keep: int) -> None:
    found = spectral_evolution(
        lambda x_T, prompt: x_T.repeat(1, 3, 1, 1),
        LATENT,
        "p",
        brightness,
        n,
        keep=keep,
        seed=0,
        batch_size=8,
    )
    assert len(found.rewards) == n


def test_the_band_is_orthonormal() -> None:
    x = NoiseDistribution.standard((3, 8, 8)).sample(5, 0)
    z = low_band(x, 2)
    assert z.shape == (5, 3, 2, 2)
    torch.testing.assert_close(low_band(spread(z, 2), 2), z)
    torch.testing.assert_close(spread(z, 2).square().sum(), z.square().sum())
    video = NoiseDistribution.standard((3, 4, 8, 8)).sample(2, 0)
    assert low_band(video, 1).shape == (2, 3, 4, 4, 4)


@pytest.mark.parametrize("wrong", [{"keep": 0}, {"keep": 51}, {"batch_size": 0}])
@pytest.mark.parametrize("search", [zero_order, spectral_evolution])
def test_numbers_that_make_no_sense_are_refused(search, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="need 1 ≤ keep"):
        search(pictures, LATENT, "p", brightness, 50, **{"keep": 1, "seed": 0, "batch_size": 8} | wrong)
