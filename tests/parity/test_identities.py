"""Methods that are others in a special case: the same loss, gradient, weights or pictures."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffalign import Sampler, load_pipeline
from diffalign.diffusion import seeded_noise
from diffalign.learners.best_of_n import BestOfN
from diffalign.learners.denoiser import DenoiserLearner
from diffalign.learners.find import FindLearner
from diffalign.learners.zero_order import ZeroOrder
from diffalign.loop import train
from diffalign.objectives import dpok_loss, policy_gradient_loss, ppo_loss
from diffalign.policies import MixturePolicy, NoiseDistribution, NoisePolicy
from diffalign.policies.denoiser import DenoiserPolicy
from diffalign.settings.find import FindConfig
from diffalign.settings.search import SearchConfig
from diffalign.settings.tune import TuneConfig
from tests.toys import AnalyticPolicy, Toy

LATENT = (2, 8, 8)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    log_prob = torch.randn(6, 4, generator=generator).mul(0.01).requires_grad_()
    old = log_prob.detach() + 1e-4 * torch.randn(6, 4, generator=generator)
    return log_prob, old, torch.randn(6, 4, generator=generator)


def gradient(loss: Tensor, log_prob: Tensor) -> Tensor:
    return torch.autograd.grad(loss, log_prob)[0]


def test_ppo_at_ratio_1_is_pg(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    log_prob, _, advantage = batch
    here = log_prob.detach().clone()
    for clip_range in (1e-4, 0.02):
        ppo = gradient(ppo_loss(log_prob, here, advantage, clip_range=clip_range)[0], log_prob)
        pg = gradient(policy_gradient_loss(log_prob, here, advantage)[0], log_prob)
        assert torch.equal(ppo, pg)
        torch.testing.assert_close(pg, -advantage / advantage.numel())


def test_ppo_that_never_clips_is_pg(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    log_prob, old, advantage = batch
    assert torch.equal(
        ppo_loss(log_prob, old, advantage, clip_range=0.5)[0],
        policy_gradient_loss(log_prob, old, advantage)[0],
    )


def test_dpok_without_kl_is_ppo(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    log_prob, old, advantage = batch
    kl = torch.rand(6, 4)
    dpok = dpok_loss(log_prob, old, advantage, kl, clip_range=1e-4, alpha=1.0, beta=0.0)[0]
    ppo = ppo_loss(log_prob, old, advantage, clip_range=1e-4)[0]
    assert torch.equal(gradient(dpok, log_prob), gradient(ppo, log_prob))
    more = dpok_loss(log_prob, old, advantage, kl, clip_range=1e-4, alpha=10.0, beta=0.5)[0]
    torch.testing.assert_close(more, 10 * ppo + 0.5 * kl.mean())


def near(images: Tensor, prompts: list[str]) -> Tensor:
    return -(images - 0.4).square().flatten(1).sum(1)


def tuned(**settings: Any) -> Tensor:
    """What the exact denoiser of a Gaussian has learned after two rounds."""
    policy = AnalyticPolicy()
    full = {"samples": 12, "interval": "full", "branches": 1, "threshold": 0.0, "clip_range": 0.1}
    config = TuneConfig(**{**full, "rounds": 2, "learning_rate": 1e-2, **settings})
    list(train(DenoiserLearner(policy, ["a", "b"], config), near))
    assert policy.b.abs().max() > 0
    return policy.b.detach()


def test_ppo_with_one_step_a_round_learns_what_pg_does() -> None:
    assert torch.equal(tuned(objective="ppo", update_batch=12), tuned(objective="pg", update_batch=12))
    assert not torch.equal(
        tuned(objective="ppo", update_batch=4, clip_range=1e-3), tuned(objective="pg", update_batch=4)
    )


def test_dpok_without_kl_learns_what_ppo_does() -> None:
    ppo = tuned(objective="ppo", update_batch=4)
    assert torch.equal(tuned(objective="dpok", update_batch=4, dpok_alpha=1.0, dpok_beta=0.0), ppo)
    assert not torch.equal(tuned(objective="dpok", update_batch=4, dpok_alpha=1.0, dpok_beta=9.0), ppo)


B2 = TuneConfig(
    rounds=2,
    samples=12,
    interval="backward",
    first_steps=4,  # of 4: the full interval
    branches=1,
    threshold=0.0,
    update_batch=8,
    learning_rate=1e-3,
    clip_range=0.1,
)


def test_b2_with_one_branch_no_threshold_and_the_full_interval_is_ddpo(tiny_pipeline_folder: Path) -> None:
    def adapter(config: TuneConfig) -> tuple[list[Tensor], Tensor]:
        pipeline = load_pipeline(tiny_pipeline_folder, device="cpu")
        policy = DenoiserPolicy(Sampler(pipeline, num_steps=4, guidance_scale=2.0))
        learner = DenoiserLearner(policy, ["a dog", "a cat"], config)
        rounds = train(learner, lambda images, prompts: 10 * images.flatten(1).mean(1))
        pictures = [round.images for round in rounds]
        return pictures, torch.cat([p.detach().flatten() for p in policy.learned()])

    (pictures, learned), (same, again) = adapter(B2), adapter(replace(B2, interval="full"))
    assert all(torch.equal(a, b) for a, b in zip(pictures, same, strict=True))
    assert torch.equal(learned, again)


def brightness(images: Tensor, prompts: list[str]) -> Tensor:
    return images.flatten(1).mean(1)


def test_find_without_history_has_nothing_to_clip() -> None:
    def found(clip_range: float) -> NoiseDistribution:
        config = FindConfig(queries=45, components=0, clip_range=clip_range)
        learner = FindLearner(Toy(LATENT), ["a dog"], config)
        list(train(learner, brightness))
        return learner.result()

    assert torch.equal(found(0.02).mean, found(0.0).mean) and found(0.0).mean.abs().max() > 0


def test_a_mixture_of_one_place_is_a_gaussian() -> None:
    mean, std = torch.randn(2, 1, *LATENT, generator=torch.Generator().manual_seed(0))
    std = std.exp()
    mixture = NoiseDistribution(mean, std, LATENT, weights=torch.ones(1))
    gaussian = NoiseDistribution(mean[0], std[0], LATENT)
    assert torch.equal(mixture.sample(5, 3), gaussian.sample(5, 3))
    x_T = gaussian.sample(4, 1)
    torch.testing.assert_close(mixture.log_prob(x_T), gaussian.log_prob(x_T))
    torch.testing.assert_close(mixture.kl(), gaussian.kl())
    torch.testing.assert_close(mixture.center(), gaussian.center())


def test_a_mixture_of_equal_components_is_their_gaussian() -> None:
    policy = MixturePolicy(LATENT, 3, 0.6)
    policy.grow(seeded_noise(LATENT, 0, "test", [7]).expand(3, *LATENT))
    mixture = policy()
    gaussian = NoiseDistribution(mixture.mean[0], mixture.std[0], LATENT)
    x_T = seeded_noise(LATENT, 1, "test", range(4))
    torch.testing.assert_close(mixture.log_prob(x_T), gaussian.log_prob(x_T))
    assert torch.equal(mixture.sample(4, 0), gaussian.sample(4, 0))


def test_a_low_basis_of_all_frequencies_is_the_identity() -> None:
    full, whole = NoisePolicy(LATENT, "identity"), NoisePolicy(LATENT, "dct8")
    x_T = seeded_noise(LATENT, 0, "test", range(3))
    torch.testing.assert_close(whole().log_prob(x_T), full().log_prob(x_T))
    torch.testing.assert_close(whole().transform(x_T), full().transform(x_T), atol=1e-5, rtol=0)


def test_zero_order_that_never_moves_is_best_of_n() -> None:
    config = SearchConfig(queries=20, keep=3, neighbours=20, seed=4)
    found = []
    for search in (BestOfN, ZeroOrder):
        own = search(Toy(LATENT), ["a dog"], config)
        list(train(own, brightness))
        found.append(own.best)
    assert found[0].indices == found[1].indices
    assert torch.equal(found[0].x_T, found[1].x_T) and torch.equal(found[0].rewards, found[1].rewards)
