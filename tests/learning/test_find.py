r"""Every estimator must find the known optimum of an analytic problem.

Data N(b, a² I) has an exact denoiser, and its probability flow maps x_T to x_0 = a x_T + b. With the
reward −‖x_0 − y‖² the optimal initial noise is x_T = (y − b) / a.
"""

import pytest
import torch
from torch import Tensor

from diffalign.learners.find import FindLearner
from diffalign.loop import train
from diffalign.policies import NoiseDistribution
from diffalign.settings.fields import preset
from diffalign.settings.find import PRESETS, FindConfig
from tests.toys import Toy

LATENT = (1, 2, 2)
A, B = 0.5, 0.2
OPTIMUM = torch.tensor([[[1.0, -0.8], [0.5, 0.0]]])


def environment(x_T: Tensor, prompt: str) -> Tensor:
    return A * x_T + B


def reward(images: Tensor, prompts: list[str]) -> Tensor:
    return -(images - (A * OPTIMUM + B)).square().flatten(1).sum(1)


def expected_reward(noise: NoiseDistribution) -> float:
    """E[r] in closed form: the optimum's is 0, the frozen model's −A² (‖x*‖² + D)."""
    squares = ((noise.mean - OPTIMUM).square() + noise.std.square()).view(-1, OPTIMUM.numel()).sum(1)
    weights = torch.ones(1) if noise.weights is None else noise.weights
    return -(A**2) * float((weights * squares).sum())


FROZEN = expected_reward(NoiseDistribution.standard(LATENT))
DRCM = dict(
    advantage="drcm",
    optimiser="adamw",
    history=True,
    batch=1,
    learning_rate=0.01,
    value_updates=1,
    value_learning_rate=1e-4,
)
ESTIMATORS = {
    "drcm, clipped, adamw": dict(DRCM, clip_range=0.02),
    "drcm, adamw": DRCM,
    "rank, natural": dict(advantage="rank", optimiser="natural", learning_rate=0.3, batch=20),
    "leave-one-out, natural": dict(
        advantage="leave-one-out", optimiser="natural", learning_rate=1.0, batch=20
    ),
    "leave-one-out, adamw": dict(advantage="leave-one-out", optimiser="adamw", batch=10),
    "standardise, natural, mixture": dict(
        advantage="standardise",
        optimiser="natural",
        components=60,
        std="preserving",
        learning_rate=2.0,
        batch=30,
    ),
    "standardise, clipped, adamw": dict(
        advantage="standardise", clip_range=0.2, optimiser="adamw", history=True, batch=10
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_the_optimum_is_reached(name: str) -> None:
    settings = {
        "queries": 600,
        "basis": "identity",
        "components": 0,
        "std": "learned",
        "antithetic": False,
        "learning_rate": 0.02,
        **ESTIMATORS[name],
    }
    final, distances = [], []
    for seed in range(3):
        learner = FindLearner(Toy(LATENT, environment), ["a dog"], FindConfig(seed=seed, **settings))
        for _ in train(learner, reward):
            pass
        learned = learner.distribution()
        final.append(expected_reward(learned))
        distances.append(float((learned.center() - OPTIMUM).norm() / OPTIMUM.norm()))
    assert sum(final) / 3 > 0.35 * FROZEN, (final, FROZEN)
    # unclipped, what one sample an update teaches depends on the last bits: 0.2 to 0.7, by seed and processor
    most = 0.7 if name == "drcm, adamw" else 0.4
    assert sum(distances) / 3 < most, distances


def test_the_default_preset_beats_the_papers_at_equal_queries() -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.zeros(4, 8, 8)
    target[:, :4] += torch.randn(4, 1, 1, generator=generator)  # what low frequencies can reach

    def towards(images: Tensor, prompts: list[str]) -> Tensor:
        return -(images - target).square().flatten(1).mean(1)

    gains = {}
    for name in ("default", "paper"):
        learner = FindLearner(Toy((4, 8, 8)), ["a dog"], preset(PRESETS, name, {"seed": 1}))
        for _ in train(learner, towards):
            pass
        fresh = learner.distribution().sample(256, seed=5)
        gains[name] = float(towards(fresh, []).mean())
    assert gains["default"] > gains["paper"] + 0.05, gains
