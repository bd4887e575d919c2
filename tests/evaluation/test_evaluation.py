import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diffalign.diffusion import PipelineError
from diffalign.evaluation import (
    Cost,
    Samples,
    assess,
    evaluate,
    peak_memory_mb,
    pooled,
    summarise,
)
from diffalign.evaluation.measuring import measure
from diffalign.evaluation.sources import read_source
from diffalign.metrics import Embedder, paired
from diffalign.policies.noise import NoiseDistribution
from diffalign.rewards import RewardError
from diffalign.rollout import as_bytes

LATENT = (3, 4, 4)
STANDARD = NoiseDistribution.standard(LATENT)
SHIFTED = NoiseDistribution(torch.full(LATENT, 0.5), torch.ones(LATENT), LATENT)


def environment(x_T: Tensor, prompt: str) -> Tensor:
    return x_T.sigmoid()


def reward(images: Tensor, prompts: list[str]) -> Tensor:
    assert prompts == ["a dog"] * len(images)
    return images.logit().mean((1, 2, 3))


def judge(images: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
    graded = images.mean((1, 2, 3))
    return graded > 0.55, graded


EMBED = Embedder("pixels", lambda images: images.flatten(1))


def samples(distribution: NoiseDistribution = STANDARD, n: int = 40, **more) -> Samples:
    return evaluate(environment, "a dog", distribution, reward, n=n, seed=3, **more)


def cost(*rows: str) -> dict[str, Cost]:
    return {row: Cost(10, 200, 1.5, 900.0) for row in rows}


def test_baseline_and_tuned_are_pairs() -> None:
    gains = samples(SHIFTED).reward - samples().reward
    torch.testing.assert_close(gains, torch.full((40,), 0.5), atol=1e-4, rtol=0)


def test_the_samples_are_fresh() -> None:
    trained = STANDARD.sample(40, 3, stream="train").mean((1, 2, 3))
    assert not set(trained.tolist()) & set(samples().reward.tolist())
    torch.testing.assert_close(
        samples().reward, STANDARD.sample(40, 3, stream="evaluate").mean((1, 2, 3)), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    done: list[int] = []
    one = samples(judge=judge, embed=EMBED)
    other = samples(judge=judge, embed=EMBED, batch_size=batch_size, on_batch=done.append)
    assert sum(done) == 40 and len(done) == -(-40 // batch_size)
    assert max(done) == done[0] == min(batch_size, 40)
    for name in ("images", "reward", "judged", "graded", "embeddings", "steadiness"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name), atol=1e-6, rtol=0)


def test_what_is_kept_of_a_sample() -> None:
    full = samples(judge=judge, embed=EMBED)
    assert full.images.shape == (40, 3, 4, 4) and full.images.dtype == torch.uint8
    assert full.judged is not None and full.judged.dtype == torch.bool
    assert full.embeddings is not None and full.embeddings.shape == (40, 48)
    assert full.diversity_on == "pixels"
    bare = samples()
    assert (bare.judged, bare.graded, bare.embeddings, bare.diversity_on) == (None,) * 4


def test_bytes_are_those_that_diffusers_gives() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    theirs = [
        Image.fromarray((it * 255).round().astype("uint8")) for it in images.permute(0, 2, 3, 1).numpy()
    ]
    ours = as_bytes(images).permute(0, 2, 3, 1).numpy()
    assert all(np.array_equal(a, np.asarray(b)) for a, b in zip(ours, theirs, strict=True))
    assert as_bytes(torch.tensor([-0.1, 0.5, 1.1])).tolist() == [0, 128, 255]
    assert torch.equal(as_bytes(as_bytes(images)), as_bytes(images))


def test_pictures_that_are_there_are_not_scored_again() -> None:
    known = torch.tensor([3.0, 2.0])
    selected = assess(torch.full((2, 3, 4, 4), 0.6), "a dog", known, judge=judge)
    assert selected.reward is known
    assert selected.judged is not None and selected.judged.all()
    with pytest.raises(ValueError, match="2 pictures"):
        assess(torch.rand(2, 3, 4, 4), "a dog", known[:1])


def test_the_summary() -> None:
    baseline = samples(judge=judge, embed=EMBED)
    tuned = samples(SHIFTED, judge=judge, embed=EMBED)
    best = replace(baseline, reward=baseline.reward + 1)
    names = {"prompt": "a dog", "model": "toy", "reward": "logit", "judge": "bright"}
    rows = ("baseline", "best_of_n", "tuned")
    summary = summarise(baseline, tuned, best, cost(*rows), **names, run={"seed": 3})
    assert summary["schema"] == "diffalign.summary/1"
    assert {key: summary[key] for key in names} == names
    assert summary["n"] == 40 and summary["run"] == {"seed": 3}
    assert tuple(summary["rows"]) == tuple(summary["cost"]) == rows
    row = summary["rows"]["tuned"]
    assert row["reward"]["mean"] == pytest.approx(tuned.reward.mean().item(), abs=1e-6)
    assert row["judged_accuracy"]["mean"] == pytest.approx(tuned.judged.float().mean().item())
    assert row["diversity"]["on"] == "pixels" and 1 < row["diversity"]["vendi"] < 40
    assert summary["gain"]["reward"] == paired(tuned.reward, baseline.reward).as_dict()
    assert summary["gain"]["reward"]["mean"] == pytest.approx(0.5, abs=1e-4)
    distances = [summary["rows"][name]["diversity"]["pairwise_distance"] for name in ("tuned", "baseline")]
    assert summary["gain"]["pairwise_distance"]["mean"] == pytest.approx(distances[0] - distances[1])
    accuracy = tuned.judged.float() - baseline.judged.float()
    assert summary["gain"]["judged_accuracy"]["mean"] == pytest.approx(accuracy.mean().item())
    assert summary["cost"]["tuned"] == {
        "reward_queries": 10,
        "denoiser_forwards": 200,
        "seconds": 1.5,
        "peak_memory_mb": 900.0,
    }
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_loss_of_diversity_is_one_of_each_prompts_pictures() -> None:
    """Not of pictures of different prompts, which differ anyway."""
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.tensor(centre) for centre in ([3.0, 0.0], [0.0, 3.0])]

    def drawn(spread: float, n: int = 12) -> Samples:
        parts = [centre + spread * torch.randn(n, 2, generator=generator) for centre in prompts]
        pictures = torch.zeros(n, 3, 2, 2, dtype=torch.uint8)
        return pooled([Samples(pictures, torch.zeros(n), embeddings=part) for part in parts])

    def gain(*rows: Samples) -> dict[str, float] | None:
        names = {"prompt": "2 held-out prompts", "model": "toy", "reward": "logit"}
        summary = summarise(*rows, None, cost("baseline", "tuned"), **names)
        found = summary["rows"]
        difference = summary["gain"]["pairwise_distance"]
        if difference is not None:
            expected = [found[name]["diversity"]["pairwise_distance"] for name in ("tuned", "baseline")]
            assert difference["mean"] == pytest.approx(expected[0] - expected[1])
        return difference

    lost = gain(drawn(1.0), drawn(0.1))
    assert lost is not None and lost["high"] < 0 and lost["n"] == 24
    same = gain(drawn(1.0), drawn(1.0))
    assert same is not None and same["low"] < 0 < same["high"]
    assert gain(drawn(1.0, 2), drawn(0.1, 2)) is None


def test_the_figures_of_each_prompt_are_those_of_its_pictures_alone() -> None:
    names = {"prompt": "2 held-out prompts", "model": "toy", "reward": "logit"}
    costs = cost("baseline", "tuned")
    before = [samples(judge=judge, embed=EMBED, n=n) for n in (5, 8)]
    after = [samples(SHIFTED, judge=judge, embed=EMBED, n=n) for n in (5, 8)]
    prompts = ["a dog", "a cat"]
    found = summarise(pooled(before), pooled(after), None, costs, prompts=prompts, **names)["by_prompt"]
    assert [(part["prompt"], part["n"]) for part in found] == [("a dog", 5), ("a cat", 8)]
    for part, *pair in zip(found, before, after, strict=True):
        alone = summarise(*pair, None, costs, **{**names, "prompt": part["prompt"]})
        assert {name: alone[name] for name in ("rows", "gain")} == {
            name: part[name] for name in ("rows", "gain")
        }
        assert alone["by_prompt"] == []
    with pytest.raises(ValueError, match="zip"):
        summarise(pooled(before), pooled(after), None, costs, prompts=["a dog", "a cat", "a lion"], **names)


def test_the_same_samples_give_the_same_figures() -> None:
    def figures(batch_size: int) -> str:
        made = [samples(it, judge=judge, embed=EMBED, batch_size=batch_size) for it in (STANDARD, SHIFTED)]
        costs = {row: Cost(10, 200, batch_size, None) for row in ("baseline", "tuned")}
        summary = summarise(*made, None, costs, prompt="a dog", model="toy", reward="logit")
        return json.dumps({**summary, "cost": None})

    assert figures(8) == figures(16)


def test_rows_that_are_missing() -> None:
    summary = summarise(
        samples(), None, samples(), cost("baseline", "best_of_n"), prompt="", model="", reward=""
    )
    assert summary["gain"] is None
    assert tuple(summary["rows"]) == ("baseline", "best_of_n")
    assert summary["rows"]["baseline"]["judged_accuracy"] is None
    assert summary["rows"]["baseline"]["diversity"] is None


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="equal n"):
        summarise(samples(), samples(n=8), None, cost("baseline", "tuned"), prompt="", model="", reward="")
    with pytest.raises(ValueError, match="need the cost of"):
        summarise(samples(), samples(), None, cost("baseline"), prompt="", model="", reward="")


def test_a_failing_reward_ends_it() -> None:
    with pytest.raises(RewardError, match="shape"):
        evaluate(environment, "a dog", STANDARD, lambda images, prompts: torch.ones(1), n=4, seed=0)


@pytest.mark.parametrize(("n", "batch_size"), [(0, 4), (4, 0)])
def test_bad_numbers(n: int, batch_size: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        samples(n=n, batch_size=batch_size)


def test_peak_memory_is_in_megabytes() -> None:
    peak = peak_memory_mb()
    assert peak is None or 50 < peak < 1e6


def test_embeddings_and_features_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    """Their distance would be no number, which JSON does not know."""
    nothing = Embedder("pixels", lambda images: images.flatten(1) * torch.nan)
    with pytest.raises(
        PipelineError, match=r"4 of 4 pictures' embeddings .*; compute the network in float32"
    ):
        samples(n=4, embed=nothing)
    Image.new("RGB", (4, 4)).save(tmp_path / "picture.png")
    with pytest.raises(PipelineError, match=r"1 of 1 pictures' features .*; compute the network in float32"):
        measure(read_source(str(tmp_path), "a dog"), {}, {"distance": nothing})
