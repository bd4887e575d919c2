"""Successive halving: what goes on, what it costs, and that a stopped search goes on to the same result."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffalign import Sampler, load_pipeline, search
from diffalign.diffusion.estimates import Estimates
from diffalign.learners.halving import Halving
from diffalign.learners.searches import build
from diffalign.loop import train
from diffalign.settings.fields import ConfigError
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 8, 8)


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T[:, :1].repeat(1, 3, 1, 1)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images[:, 0].mean((1, 2))


class Steps:
    """Estimates of ten steps, of which each halves the latents; pictures are of the noise, and some lie."""

    num_steps = 10

    def __init__(self) -> None:
        self.asked: list[tuple[int, range]] = []

    def forwards(self, steps: range) -> int:
        return 2 * len(steps)

    def __call__(self, x_t: Tensor, steps: range, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        self.asked.append((len(x_t), steps))
        x_T = x_t * 2**steps.start
        return x_T / 2**steps.stop, pictures(x_T, "p") + 1


def made(queries: int = 70, keep: int = 4) -> Halving:
    own = Halving(
        Toy(LATENT, pictures, forwards=20), ["p"], SearchConfig("halving", queries=queries, keep=keep)
    )
    own.estimates = Steps()  # type: ignore[assignment]
    return own


def test_the_better_half_goes_on_and_costs_are_those_of_steps() -> None:
    own = made()
    assert own.looks == [4, 6] and own.sizes == [40, 20, 10]
    rounds = list(train(own, brightness))
    assert [len(round.rewards) for round in rounds] == [40, 20, 10] and own.queries == 70
    assert [round.figures()["denoiser_forwards"] for round in rounds] == [40 * 8, 20 * 4, 10 * 20]
    assert [round.figures().get("previews", 0) for round in rounds] == [40, 20, 0]
    assert {steps for _, steps in own.estimates.asked} == {range(4), range(4, 6)}  # type: ignore[union-attr]
    best = rounds[0].rewards.sort(descending=True).values
    torch.testing.assert_close(rounds[1].rewards.sort(descending=True).values, best[:20])
    torch.testing.assert_close(own.best.kept_rewards(), best[:4] - 1)
    torch.testing.assert_close(own.best.kept_rewards(), brightness(pictures(own.best.x_T, "p"), []))
    assert len(own.best.previews) == 60 and len(own.best.rewards) == 10
    assert own.best.described() == "the best 4 of 10 pictures of the best of 60 previews"


@pytest.mark.parametrize(("queries", "keep"), [(5, 1), (10, 2), (150, 30), (150, 31), (150, 75), (151, 1)])
def test_each_look_leaves_no_more_than_it_had(queries: int, keep: int) -> None:
    sizes = made(queries, keep).sizes
    assert sum(sizes) == queries and sizes == sorted(sizes, reverse=True) and sizes[-1] >= keep


def test_more_than_a_half_cannot_be_kept() -> None:
    with pytest.raises(ConfigError, match="at most half of 150 queries, not 76"):
        SearchConfig("halving", queries=150, keep=76)


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_stopped_search_goes_on_to_the_same_result(rounds: int) -> None:
    whole, first, second = made(), made(), made()
    list(train(whole, brightness))
    for _, _ in zip(range(rounds), train(first, brightness), strict=False):
        pass
    second.load(*first.state())
    list(train(second, brightness))
    torch.testing.assert_close(second.best.x_T, whole.best.x_T)
    assert torch.equal(second.best.previews, whole.best.previews)


def test_neither_stop_at_nor_patience_reads_rewards_of_estimates() -> None:
    config = SearchConfig("halving", queries=70, keep=4, stop_at=-10.0, patience=1)
    own = Halving(Toy(LATENT, pictures, forwards=20), ["p"], config)
    own.estimates = Steps()  # type: ignore[assignment]
    assert len(list(train(own, brightness))) == 3 and len(own.best.rewards) == 10


@pytest.mark.parametrize("model", ["world", "world-flow"])
def test_estimates_come_to_the_samplers_pictures(model: str) -> None:
    sampler = Sampler(load_pipeline(model, device="cpu"), num_steps=4)
    estimates, prompts = Estimates(sampler), ["a dog", "a cat"]
    x_T = torch.randn(2, *sampler.latent_shape, generator=torch.Generator().manual_seed(0))
    after, early = estimates(x_T, range(2), prompts)
    ends, late = estimates(after, range(2, 4), prompts)
    whole = sampler(x_T, prompts)
    assert (late - whole).abs().mean() < 0.01 < (early - whole).abs().mean()
    assert ends.shape == x_T.shape and estimates.forwards(range(2, 4)) == 2 * sampler.passes


def test_its_noise_makes_its_pictures(tiny_pipeline_folder: Path) -> None:
    run = search(
        str(tiny_pipeline_folder), "a dog", brightness, preset="halving", queries=14, keep=2, num_steps=5
    )
    kept = run.run()
    sampler = Sampler(load_pipeline(str(tiny_pipeline_folder)), num_steps=5, batch_size=2)
    torch.testing.assert_close(sampler(kept.x_T, "a dog"), kept.images, atol=1e-5, rtol=0)
    assert len(kept.rewards) == 2 and len(kept.previews) == 12


def test_one_step_leaves_nothing_to_look_at(tiny_pipeline_folder: Path) -> None:
    sampler = Sampler(load_pipeline(str(tiny_pipeline_folder)), num_steps=1)
    own = build(sampler, ["a dog"], SearchConfig("halving", queries=10, keep=2), {})
    assert isinstance(own, Halving) and own.sizes == [10]
