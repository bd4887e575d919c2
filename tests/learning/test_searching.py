"""What a search finds: where the noise's low band decides, more than best-of-N does."""

import pytest
import torch
from torch import Tensor

from diffalign.learners.search import SearchLearner
from diffalign.learners.searches import SEARCHES
from diffalign.loop import train
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 8, 8)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T[:, :1].repeat(1, 3, 1, 1)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    """Of broad areas: what a low band decides."""
    return images[:, 0, :4, :4].mean((1, 2)) - images[:, 0, 4:, 4:].mean((1, 2))


def best(search: type[SearchLearner], seed: int) -> float:
    config = SearchConfig(queries=120, keep=2, seed=seed)
    own = search(Toy(LATENT, pictures), ["p"], config)
    for _ in train(own, brightness):
        pass
    found = own.best
    assert len(found.rewards) == 120 and found.x_T.shape == (2, *LATENT)
    torch.testing.assert_close(found.kept_rewards(), brightness(pictures(found.x_T, "p"), []))
    assert found.kept_rewards()[0] >= found.kept_rewards()[1]
    return float(found.kept_rewards()[0])


@pytest.mark.parametrize("name", sorted(SEARCHES.keys() - {"best-of-n"}))
def test_it_finds_more_than_best_of_n(name: str) -> None:
    gains = [best(SEARCHES[name], seed) - best(SEARCHES["best-of-n"], seed) for seed in range(5)]
    assert sum(gains) / 5 > 0.2
