import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.spectral import low_band, spread
from diffalign.learners.spectral_fresh import SpectralFresh
from diffalign.loop import train
from diffalign.settings.search import PRESETS
from tests.toys import Toy

LATENT = (2, 8, 8)


def first(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0, :4, :4].mean((1, 2))


def test_the_last_elites_move_the_band_and_the_rest_is_drawn_anew() -> None:
    own = SpectralFresh(Toy(LATENT), ["p"], PRESETS["spectral-fresh"])
    rounds = train(own, first)
    seen = [next(rounds).images for _ in range(3)]
    epsilon = seeded_noise(LATENT, 0, "search", range(90)).split(30)
    assert torch.equal(seen[0], epsilon[0])
    z = low_band(seen[1][first(seen[1], []).topk(6).indices], 2)
    std = z.std(0, correction=0).clamp_min(0.1)
    torch.testing.assert_close(low_band(seen[2], 2), z.mean(0) + std * low_band(epsilon[2], 2))
    high = [x - spread(low_band(x, 2), 2) for x in (seen[2], epsilon[2])]
    torch.testing.assert_close(*high)
