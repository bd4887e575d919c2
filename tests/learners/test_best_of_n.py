import pytest
import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.learners.best_of_n import BestOfN
from diffalign.loop import train
from diffalign.rewards import RewardError
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 4, 4)


def squashed(x_T: Tensor, prompt: str) -> Tensor:
    """Pictures that are the noise's first three rows, squashed."""
    return x_T.flatten(1)[:, :12].sigmoid().view(-1, 3, 2, 2)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return images.mean((1, 2, 3))


def learner(n: int = 20, keep: int = 3, batch_size: int = 8) -> BestOfN:
    config = SearchConfig(queries=n, keep=keep, seed=5)
    return BestOfN(Toy(LATENT, squashed, batch_size), ["a dog"], config)


def search(n: int = 20, keep: int = 3, batch_size: int = 8, reward=brightness):
    own = learner(n, keep, batch_size)
    for _ in train(own, reward):
        pass
    return own.best


def test_it_keeps_the_best_of_all() -> None:
    x_T = seeded_noise(LATENT, 5, "search", range(20))
    images = squashed(x_T, "")
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
    own = learner(keep=12)
    seen = [own.best for _ in train(own, brightness)]
    assert own.environment.sizes == [8, 8, 4]
    assert [len(it.rewards) for it in seen] == [8, 16, 20]
    assert [len(it.images) for it in seen] == [8, 12, 12]  # never more than are to be kept
    assert seen[-1] is own.best


def test_a_failing_reward_is_named() -> None:
    with pytest.raises(RewardError, match="returned nan for picture 0"):
        search(reward=lambda images, prompts: torch.full((len(images),), float("nan")))
