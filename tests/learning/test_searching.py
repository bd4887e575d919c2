"""What a search finds: where the noise's low band decides, more than best-of-N does."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from diffalign.learners.searches import SEARCHES
from diffalign.loop import train
from diffalign.settings.search import PRESETS
from tests.toys import Toy

LATENT = (2, 32, 32)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T[:, :1].repeat(1, 3, 1, 1)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    """Of broad areas, in standard deviations: what a low band decides."""
    return 16 * (images[:, 0, :16, :16].mean((1, 2)) - images[:, 0, 16:, 16:].mean((1, 2)))


def best(name: str, seed: int) -> float:
    config = replace(PRESETS.get(name, PRESETS["default"]), queries=120, keep=2, seed=seed)
    own = SEARCHES[name](Toy(LATENT, pictures), ["p"], config)
    for _ in train(own, brightness):
        pass
    found = own.best
    assert len(found.rewards) == 120 and found.x_T.shape == (2, *LATENT)
    torch.testing.assert_close(found.kept_rewards(), brightness(pictures(found.x_T, "p"), []))
    assert found.kept_rewards()[0] >= found.kept_rewards()[1]
    return float(found.kept_rewards()[0])


@pytest.mark.parametrize("name", sorted(SEARCHES.keys() - {"best-of-n", "halving"}))
def test_it_finds_more_than_best_of_n(name: str) -> None:
    gains = [best(name, seed) - best("best-of-n", seed) for seed in range(5)]
    assert sum(gains) / 5 > 1
