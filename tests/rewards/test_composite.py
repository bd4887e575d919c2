"""Weighted sums of rewards."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffalign.rewards import RewardError, component_means, load_reward, score
from diffalign.rewards.composite import Composite, composed, reference


def red(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


def long(images: Tensor, prompts: list[str]) -> Tensor:
    return 100.0 * torch.tensor([len(prompt) for prompt in prompts])


def named(name: str) -> Callable[[Tensor, list[str]], Tensor]:
    return {"red": red, "a-long@b/c": long}[name]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("red + 0.5*a-long@b/c", {"red": 1.0, "a-long@b/c": 0.5}),
        ("2 * red - a-long@b/c", {"red": 2.0, "a-long@b/c": -1.0}),
        ("red - .25*red", {"red": 0.75}),
    ],
)
def test_sums_are_read(text: str, weights: dict[str, float]) -> None:
    assert composed(text, named).weights == weights


@pytest.mark.parametrize("text", ["red +  + red", "red + two red", "x*red + red"])
def test_what_is_no_sum_is_named(text: str) -> None:
    with pytest.raises(RewardError, match="is no reward and no weighted one"):
        composed(text, named)


def test_each_reward_counts_in_its_own_standard_deviations() -> None:
    images, prompts = reference()
    expected = torch.zeros(len(images), dtype=torch.double)
    for weight, reward in ((1.0, red), (-0.5, long)):
        values = score(reward, images, prompts).double()
        expected += weight * (values - values.mean()) / values.std()
    own = composed("red - 0.5*a-long@b/c", named)
    torch.testing.assert_close(score(own, images, prompts).double(), expected, atol=1e-4, rtol=0)
    apart = torch.cat([score(own, images[i : i + 1], prompts[i : i + 1]) for i in range(len(images))])
    torch.testing.assert_close(apart.double(), expected, atol=1e-4, rtol=0)


def test_components_are_told_in_their_own_units_and_once() -> None:
    own = composed("red + a-long@b/c", named)
    images = torch.full((2, 3, 8, 8), 0.5)
    own(images, ["a", "abc"])
    own(images + 0.25, ["a", "a"])
    assert component_means(own) == {
        "components": {"red": pytest.approx(0.625), "a-long@b/c": pytest.approx(150)}
    }
    assert component_means(red) == {}
    own(images, ["a", "a"])
    assert component_means(own)["components"]["a-long@b/c"] == 100


def test_half_of_the_reference_is_wrong() -> None:
    exact = score(load_reward("world-scene"), *reference())
    half = len(exact) // 2
    assert (exact[:half] == 1).all() and exact[half:].mean() < 0.7


def test_a_reward_without_a_scale_is_refused() -> None:
    with pytest.raises(RewardError, match="the same score"):
        Composite({"one": 1.0}, {"one": lambda images, prompts: torch.ones(len(images))})


def test_the_registry_knows_sums() -> None:
    own = load_reward("world-scene + 0.5*jpeg-compressibility")
    assert isinstance(own, Composite) and own.weights == {"world-scene": 1.0, "jpeg-compressibility": 0.5}
    with pytest.raises(RewardError, match="did you mean 'world-clip'"):
        load_reward("world-clap + world-scene")
    with pytest.raises(RewardError, match="a sum has blanks"):
        load_reward("world-clip+world-scene")
