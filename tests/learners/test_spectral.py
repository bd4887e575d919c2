import pytest
import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.spectral import Spectral, deepest_level, low_band, spread
from diffalign.loop import train
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.fields import ConfigError
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 16, 32)


def first(images: Tensor, prompts: list[str]) -> Tensor:
    """The first coefficient of the low band."""
    return images[:, 0, :16, :16].mean((1, 2))


def search(**settings: int) -> Spectral:
    return Spectral(Toy(LATENT), ["p"], SearchConfig("spectral", **settings))


def test_the_first_generation_is_noise_that_shares_a_high_band() -> None:
    own = search(seed=3)
    x_T = next(own.sample(own.ask())).x_T
    assert own.level == 4 and len(x_T) == 10  # as published
    z = low_band(seeded_noise(LATENT, 3, "search", range(10)), 4)
    assert z.shape == (10, 2, 1, 2)
    torch.testing.assert_close(low_band(x_T, 4), z)
    high = x_T - spread(low_band(x_T, 4), 4)
    torch.testing.assert_close(high, high[:1].expand_as(high))
    assert high[0].std() == pytest.approx(1, abs=0.05)


def test_the_elites_of_all_generations_move_the_band_and_none_is_sampled_again() -> None:
    own = search(queries=40, keep=2)
    rounds = list(train(own, first))
    assert [len(round.rewards) for round in rounds] == [10] * 4
    seen = torch.cat([round.images for round in rounds])
    assert len(seen.unique(dim=0)) == 40
    high = seen - spread(low_band(seen, 4), 4)
    torch.testing.assert_close(high, high[:1].expand_as(high))  # nothing but the band ever moves
    best = first(seen[:30], []).topk(5)  # of the three generations before the last
    z = low_band(seen[best.indices], 4)
    drawn = low_band(seeded_noise(LATENT, 0, "search", range(30, 40)), 4)
    std = (((z - z.mean(0)) ** 2).sum(0) / 4) ** 0.5
    torch.testing.assert_close(low_band(seen[30:], 4), z.mean(0) + std * drawn)
    torch.testing.assert_close(own.scores, first(seen, []).sort(descending=True)[0][:5])


def test_an_elite_is_not_lost_to_a_worse_generation() -> None:
    own = search(queries=20, keep=2)
    rollout = next(own.sample(own.ask()))
    own.tell(rollout, torch.arange(10.0))
    worse = next(own.sample(own.ask()))
    own.tell(worse, -1 - torch.arange(10.0))
    assert own.scores.tolist() == [9, 8, 7, 6, 5]
    torch.testing.assert_close(own.elites, low_band(rollout.x_T[5:], 4).flip(0))


def test_small_latents_have_the_deepest_level_that_fits() -> None:
    shapes = {(4, 64, 64): 4, (8, 8, 8): 3, (4, 48, 40): 3, (4, 6, 8): 1, (4, 2, 32, 16): 4}
    assert {shape: deepest_level(shape, 4) for shape in shapes} == shapes
    assert Spectral(Toy((8, 8, 8)), ["p"], SearchConfig("spectral")).elites.shape[1:] == (8, 1, 1)
    with pytest.raises(ConfigError, match="even sides, not of 7×8"):
        Spectral(Toy((4, 7, 8)), ["p"], SearchConfig("spectral"))


def test_the_band_is_orthonormal() -> None:
    x = NoiseDistribution.standard((3, 8, 8)).sample(5, 0)
    z = low_band(x, 2)
    assert z.shape == (5, 3, 2, 2)
    torch.testing.assert_close(low_band(spread(z, 2), 2), z)
    torch.testing.assert_close(spread(z, 2).square().sum(), z.square().sum())
    video = NoiseDistribution.standard((3, 4, 8, 8)).sample(2, 0)
    assert low_band(video, 1).shape == (2, 3, 4, 4, 4)


def test_packed_latents_have_the_band_of_their_grid() -> None:
    grid = (8, 4)
    x = NoiseDistribution.standard((3 * 8 * 4, 5)).sample(2, 0)  # three frames
    tokens = x.view(2, 3, 8, 4, 5).permute(0, 1, 4, 2, 3)
    z = low_band(x, 2, grid)
    assert torch.equal(z, low_band(tokens, 2)) and z.shape == (2, 3, 5, 2, 1)
    torch.testing.assert_close(low_band(spread(z, 2, grid), 2, grid), z)
    assert spread(z, 2, grid).shape == x.shape
    own = Spectral(Toy((32, 5), grid=grid), ["p"], SearchConfig("spectral", queries=20, keep=2))
    assert own.level == 2
    seen = torch.cat([round.images for round in train(own, lambda images, prompts: images.mean((1, 2)))])
    high = seen - spread(low_band(seen, 2, grid), 2, grid)
    torch.testing.assert_close(high, high[:1].expand_as(high))
