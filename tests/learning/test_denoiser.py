"""A denoiser that is exact for Gaussian data learns where the data should lie, by every objective."""

import pytest
import torch
from torch import Tensor

from diffalign.learners.denoiser import DenoiserLearner
from diffalign.loop import train
from diffalign.settings.tune import TuneConfig
from tests.toys import AnalyticPolicy

WANTED = torch.tensor([[[0.6, -0.5], [0.4, 0.0]]])


def near(images: Tensor, prompts: list[str]) -> Tensor:
    return -(images - WANTED).square().flatten(1).sum(1)


@pytest.mark.parametrize("objective", ["pg", "ppo", "dpok", "dpo"])
@pytest.mark.parametrize("branches", [1, 3], ids=["full", "b2"])
def test_the_optimum_is_reached(objective: str, branches: int) -> None:
    config = TuneConfig(
        objective=objective,
        rounds=80 if objective == "dpo" else 40,
        samples=96,
        interval="backward" if branches > 1 else "full",
        first_steps=3,
        branches=branches,
        threshold=0.2 if branches > 1 else 0.0,
        clip_range=0.2,
        dpok_beta=0.0001,
        dpo_beta=0.02,
        learning_rate=0.02,
        update_batch=96,
        micro_batch=96,
    )
    policy = AnalyticPolicy()
    rounds = list(train(DenoiserLearner(policy, ["a", "b"], config), near))
    start, end = WANTED.norm(), (policy.b.detach() - WANTED).norm()
    assert end < 0.4 * start
    assert rounds[-1].rewards.mean() > rounds[0].rewards.mean() + 0.5
    assert rounds[0].update.figures["first_ratio_error"] < 1e-5
