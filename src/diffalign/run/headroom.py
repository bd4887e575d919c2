"""How much the noise decides of a model's rewards, and so what is worth trying."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from diffalign.metrics.headroom import Shares, expected_best, variance_shares
from diffalign.run.loading import Loader
from diffalign.run.progress import Progress
from diffalign.settings.fields import ConfigError
from diffalign.settings.sampling import Sampling

LITTLE = 0.1  # share of the variance below which the seeds hardly matter
COMMON = 0.25  # share of the seeds' variance from which on one noise suits many prompts
TRIED = (4, 16, 64)  # pictures to choose from


@dataclass(frozen=True)
class Headroom:
    """What other noise can gain.

    Attributes:
        shares: of the reward's variance.
        mean: reward.
        best: N → the expected best reward of N seeds, a mean over prompts.
        right: share of pictures judged right; None without a judge.
    """

    shares: Shares
    mean: float
    best: dict[int, float]
    right: float | None

    @property
    def advice(self) -> str:
        """What this recommends."""
        if self.shares.seeds < LITTLE:
            return "tune: other noise changes little here; the denoiser must learn"
        if self.shares.noise > COMMON * self.shares.seeds:
            return "noise-ppo: some noise is good whatever the prompt, which one generator can learn"
        return "find: which noise is good depends on the prompt; tune where many prompts should gain at once"


def measure_headroom(
    sampling: Sampling, reward: str, prompts: Sequence[str], seeds: int, progress: Progress
) -> Headroom:
    """Makes and scores pictures of each prompt with the same `seeds` noises.

    Raises:
        ConfigError: if there are less than two prompts or seeds; and as a run.
    """
    if len(prompts) < 2 or seeds < 2:
        raise ConfigError("how much the noise decides is seen on two prompts and two seeds or more")
    setup = Loader().setup(sampling, reward, "auto", prompts)
    for warning in setup.warnings:
        progress.warn(warning)
    with progress.phase("sample", len(prompts) * seeds):
        samples = setup.measure(prompts, None, seeds, 0, progress, stream="headroom")
    rewards = torch.stack([one.reward for one in samples])
    judged = [one.judged.float().mean() for one in samples if one.judged is not None]
    return Headroom(
        variance_shares(rewards),
        float(rewards.mean()),
        {n: float(expected_best(rewards, n).mean()) for n in TRIED if n <= seeds},
        float(torch.stack(judged).mean()) if judged else None,
    )
