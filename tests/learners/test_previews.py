"""Searches on previews: what is drawn, what is drawn again, and that their rewards are kept apart."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.learners.previews import PreviewSearch
from diffalign.learners.searches import SEARCHES, build
from diffalign.loop import Round, train
from diffalign.settings.search import SearchConfig
from tests.toys import Toy

LATENT = (2, 8, 8)
every = pytest.mark.parametrize("algorithm", ["spectral", "spectral-fresh"])


def pictures(x_T: Tensor, prompt: str) -> Tensor:
    return x_T[:, :1].repeat(1, 3, 1, 1)


def blurred(x_T: Tensor, prompt: str) -> Tensor:
    return pictures(x_T, prompt) / 2


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return images[:, 0, :4, :4].mean((1, 2)) - images[:, 0, 4:, 4:].mean((1, 2))


def searched(
    algorithm: str, queries: int, keep: int, preview: bool = True, **numbers: float
) -> tuple[PreviewSearch, list[Round]]:
    config = SearchConfig(algorithm, queries=queries, keep=keep, **numbers)
    own = SEARCHES[algorithm](Toy(LATENT, pictures, forwards=20), ["p"], config)
    assert isinstance(own, PreviewSearch)
    if preview:
        own.preview = Toy(LATENT, blurred, forwards=4)
    return own, list(train(own, brightness))


@every
def test_previews_are_scored_and_the_best_are_made_in_full(algorithm: str) -> None:
    own, rounds = searched(algorithm, 50, 4, population=20)
    assert own.environment.sizes == [4] and own.preview.sizes == [20, 20, 6]
    # forwards, of previews and of pictures
    assert [round.figures()["denoiser_forwards"] for round in rounds] == [80, 80, 24, 80]
    assert [round.figures()["previews"] for round in rounds] == [20, 20, 6, 0]
    assert own.queries == 50


@every
def test_rewards_of_previews_and_pictures_are_kept_apart(algorithm: str) -> None:
    own, rounds = searched(algorithm, 50, 4, population=20)
    assert own.best.indices == tuple(rounds[-1].rewards.argsort(descending=True).tolist())
    assert torch.equal(own.best.rewards, rounds[-1].rewards)
    torch.testing.assert_close(own.best.kept_rewards(), brightness(pictures(own.best.x_T, "p"), []))
    assert torch.equal(own.best.previews, torch.cat([round.rewards for round in rounds[:-1]]))
    # these pictures, of twice the preview's contrast, are those of the best previews
    torch.testing.assert_close(own.best.kept_rewards() / 2, own.best.previews.sort(descending=True)[0][:4])
    assert own.best.described() == "pictures of the best 4 of 46 previews"


@every
def test_previews_with_all_steps_are_the_pictures(algorithm: str) -> None:
    own, rounds = searched(algorithm, 50, 4, preview=False, population=20)
    assert own.environment.sizes == [20, 20, 10]
    rewards = torch.cat([round.rewards for round in rounds])
    assert torch.equal(own.best.rewards, rewards) and len(own.best.previews) == 0
    assert torch.equal(own.best.kept_rewards(), rewards.sort(descending=True)[0][:4])
    assert own.best.described() == "the best 4 of 50"
    assert {round.figures()["previews"] for round in rounds} == {0}


@every
@pytest.mark.parametrize(("queries", "keep"), [(2, 1), (32, 1), (39, 8)])
def test_a_last_population_of_one_candidate_is_no_fault(algorithm: str, queries: int, keep: int) -> None:
    own, _ = searched(algorithm, queries, keep)
    assert own.queries == queries and len(own.best.x_T) == keep
    assert all(getattr(own, name).isfinite().all() for name in own.remembered)


@every
@pytest.mark.parametrize("early", [{"patience": 1}, {"stop_at": -9.0}])
def test_what_stops_early_draws_what_it_kept_and_ends(algorithm: str, early: dict[str, float]) -> None:
    own, rounds = searched(algorithm, 100, 6, population=4, **early)
    previews = [round.figures()["previews"] for round in rounds]
    assert previews == [4] * (len(rounds) - 1) + [0] and own.stopped is not None and own.queries < 100
    assert len(rounds[-1].rewards) == len(own.best.x_T) == min(6, sum(previews))


def test_previews_are_made_with_all_that_pictures_are(tiny_pipeline_folder: Path) -> None:
    call = {"negative_prompt": "ugly", "height": 32, "width": 32}
    sampler = Sampler(
        load_pipeline(tiny_pipeline_folder, device="cpu"), num_steps=4, guidance_scale=2.0, **call
    )
    own = build(sampler, ["p"], SearchConfig("spectral", queries=8, keep=2, preview_steps=2), {})
    assert isinstance(own, PreviewSearch) and isinstance(own.preview, Sampler)
    assert own.preview.num_steps == 2 and own.preview.latent_shape == sampler.latent_shape == (4, 16, 16)
    assert own.preview.given == sampler.given == call
    assert [len(round.rewards) for round in train(own, brightness)] == [6, 2]
