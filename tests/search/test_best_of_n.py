from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.rewards import RewardError
from diffalign.search import best_of_n, equal_cost

LATENT = (2, 4, 4)


class Environment:
    """Pictures that are the noise's first three rows, squashed; counts what it makes."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, x_T: Tensor, prompt: str) -> Tensor:
        self.sizes.append(len(x_T))
        return x_T.flatten(1)[:, :12].sigmoid().view(-1, 3, 2, 2)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return images.mean((1, 2, 3))


def search(n: int = 20, keep: int = 3, batch_size: int = 8, reward=brightness, environment=None, **more):
    numbers = {"keep": keep, "seed": 5, "batch_size": batch_size}
    return best_of_n(environment or Environment(), LATENT, "a dog", reward, n, **numbers, **more)


def test_it_keeps_the_best_of_all() -> None:
    x_T = seeded_noise(LATENT, 5, "search", range(20))
    images = Environment()(x_T, "")
    rewards = brightness(images, [])
    best = rewards.argsort(descending=True)[:3]
    result = search()
    assert result.indices == tuple(best.tolist())
    torch.testing.assert_close(result.rewards, rewards)
    torch.testing.assert_close(result.x_T, x_T[best])
    torch.testing.assert_close(result.images, images[best])
    torch.testing.assert_close(result.kept_rewards(), rewards[best])
    assert result.kept_rewards().tolist() == sorted(rewards.tolist(), reverse=True)[:3]


@pytest.mark.parametrize("batch_size", [1, 4, 16, 100])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    result, other = search(batch_size=20), search(batch_size=batch_size)
    assert other.indices == result.indices
    assert torch.equal(other.x_T, result.x_T)
    assert torch.equal(other.rewards, result.rewards)


@pytest.mark.parametrize("batch_size", [1, 3, 20])
def test_of_equal_ones_the_earlier_is_kept(batch_size: int) -> None:
    rewards = iter([1.0, 2.0, 2.0, 0.0, 2.0, 3.0, 2.0])
    result = search(7, 4, batch_size, lambda images, prompts: torch.tensor([next(rewards) for _ in prompts]))
    assert result.indices == (5, 1, 2, 4)


def test_each_batch_gives_the_result_so_far() -> None:
    environment, seen = Environment(), []
    result = search(keep=12, environment=environment, on_batch=seen.append)
    assert environment.sizes == [8, 8, 4]
    assert [len(it.rewards) for it in seen] == [8, 16, 20]
    assert [len(it.images) for it in seen] == [8, 12, 12]  # never more than are to be kept
    assert seen[-1] is result


def test_a_search_holds_the_smaller_ones() -> None:
    queries, wanted = 12, 8
    whole = search(equal_cost(queries, wanted), wanted)
    for keep in (1, 3, 8):
        small = search(equal_cost(queries, keep), keep)
        narrowed = whole.narrowed(equal_cost(queries, keep), keep)
        assert narrowed.indices == small.indices
        assert torch.equal(narrowed.images, small.images)
        assert torch.equal(narrowed.rewards, small.rewards)
    with pytest.raises(ValueError, match="not all among"):
        search(20, 1).narrowed(19, 3)


def test_equal_cost_counts_the_pictures_that_were_wanted() -> None:
    assert equal_cost(150, 64) == 214


@pytest.mark.parametrize(("n", "keep", "batch_size"), [(4, 5, 2), (4, 0, 2), (4, 1, 0), (0, 0, 1)])
def test_bad_numbers(n: int, keep: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="keep"):
        search(n, keep, batch_size)


def test_a_failing_reward_is_named() -> None:
    with pytest.raises(RewardError, match="returned nan for picture 0"):
        search(reward=lambda images, prompts: torch.full((len(images),), float("nan")))
