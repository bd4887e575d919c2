"""What every reward promises: one number a picture, that of the picture and its prompt alone."""

import pytest
import torch
from torch import Tensor

from diffalign.rewards import RewardError, RewardFunction, score
from diffalign.world.render import render, to_tensor
from diffalign.world.scenes import Scene, Thing

from .tables import REWARDS

PROMPTS = ["a green dog on the grass", "a cat on the snow", "a dog", "a green dog on the grass"]


@pytest.fixture(scope="module", params=list(REWARDS))
def reward(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RewardFunction:
    return REWARDS[request.param](tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def images() -> Tensor:
    scenes = [
        Scene((Thing("dog", "green", 20, 20),), "grass"),
        Scene((Thing("cat", None, 20, 20),), "snow"),
        Scene((Thing("car", "blue", 30, 10),), "grass"),
        Scene((Thing("cat", None, 40, 20),), "grass"),
    ]
    return to_tensor([render(scene) for scene in scenes])


def test_one_finite_number_a_picture(reward: RewardFunction, images: Tensor) -> None:
    values = score(reward, images, PROMPTS)
    assert values.shape == (4,) and values.dtype == torch.float32 and values.device.type == "cpu"
    assert values.isfinite().all() and len(values.unique()) > 1 and not values.requires_grad
    assert torch.equal(values, score(reward, images, PROMPTS))


def test_pictures_are_scored_alone(reward: RewardFunction, images: Tensor) -> None:
    values = score(reward, images, PROMPTS)
    apart = torch.cat([score(reward, images[i : i + 1], PROMPTS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(values, apart, atol=1e-4, rtol=1e-5)
    order = [2, 0, 3, 1]
    turned = score(reward, images[order], [PROMPTS[i] for i in order])
    torch.testing.assert_close(values[order], turned, atol=1e-4, rtol=1e-5)
    more = torch.cat([images] * 4), PROMPTS * 4
    torch.testing.assert_close(score(reward, *more), values.repeat(4), atol=1e-4, rtol=1e-5)


def test_pictures_are_only_read(reward: RewardFunction, images: Tensor) -> None:
    given, prompts = images.clone(), list(PROMPTS)
    before = torch.get_rng_state()
    reward(given, prompts)  # itself, as `score` gives it a copy
    assert torch.equal(given, images) and prompts == PROMPTS
    assert torch.equal(torch.get_rng_state(), before)


def test_a_prompt_a_picture(reward: RewardFunction, images: Tensor) -> None:
    with pytest.raises(RewardError, match="4 pictures need as many prompts, not 3"):
        score(reward, images, PROMPTS[:3])
