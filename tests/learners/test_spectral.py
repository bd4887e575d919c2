import pytest
import torch
from torch import Tensor

from diffalign.learners.spectral import Spectral, low_band, spread
from diffalign.loop import train
from diffalign.policies.noise import NoiseDistribution
from diffalign.settings.fields import ConfigError
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 8, 8)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T[:, :1].repeat(1, 3, 1, 1)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0, :4, :4].mean((1, 2)) - images[:, 0, 4:, 4:].mean((1, 2))


def searched(queries: int, keep: int, **numbers: int) -> Spectral:
    config = SearchConfig("spectral", queries=queries, keep=keep, **numbers)
    own = Spectral(Toy(LATENT, pictures), ["p"], config)
    own.preview = Toy(LATENT, pictures, forwards=4)
    own.environment.forwards = 20
    own.told = [round.figures()["denoiser_forwards"] for round in train(own, brightness)]
    return own


def test_previews_are_scored_and_the_best_are_made_in_full() -> None:
    own = searched(50, 4, population=20)
    assert own.environment.sizes == [4] and own.preview.sizes == [20, 20, 6]
    assert own.told == [80, 80, 24, 80]  # forwards, of previews and of pictures
    assert len(own.best.rewards) == 50
    assert all(index >= 46 for index in own.best.indices)  # the pictures', not the previews'
    torch.testing.assert_close(own.best.kept_rewards(), brightness(pictures(own.best.x_T, "p"), []))


@pytest.mark.parametrize(("n", "keep"), [(2, 1), (32, 1), (39, 8)])
def test_a_last_population_of_one_candidate_is_no_fault(n: int, keep: int) -> None:
    own = searched(n, keep)
    assert len(own.best.rewards) == n and own.mean.isfinite().all() and own.std.isfinite().all()


def test_the_band_is_orthonormal() -> None:
    x = NoiseDistribution.standard((3, 8, 8)).sample(5, 0)
    z = low_band(x, 2)
    assert z.shape == (5, 3, 2, 2)
    torch.testing.assert_close(low_band(spread(z, 2), 2), z)
    torch.testing.assert_close(spread(z, 2).square().sum(), z.square().sum())
    video = NoiseDistribution.standard((3, 4, 8, 8)).sample(2, 0)
    assert low_band(video, 1).shape == (2, 3, 4, 4, 4)


def test_latents_without_a_band_are_refused() -> None:
    with pytest.raises(ConfigError, match="divide by 4, not of 6×8"):
        Spectral(Toy((4, 6, 8)), ["p"], SearchConfig("spectral"))
