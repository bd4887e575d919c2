r"""Rewards normalised per prompt.   A = (r − mean) / std over this round and the last W rounds

A prompt with too few rewards for a mean and a std of its own takes those of the round; std may be the round's
for all.

Symbols:    W = window
References: Black et al. (ICLR 2024), section 5, https://arxiv.org/abs/2305.13301
            Hu et al. (CVPR 2025), section 5.1 (W = 8), https://arxiv.org/abs/2503.11240
            Shao et al. (2024), GRPO (W = 0), https://arxiv.org/abs/2402.03300
"""

import json
from collections.abc import Sequence

import torch
from torch import Tensor

from diffalign.advantages.baselines import deviations


class RunningStatistics:
    """The rewards of the last rounds, by prompt.

    Arguments:
        window: number of rounds before the current one that count.
        minimum: rewards from which on a prompt is normalised by its own.
        epsilon: added to the standard deviation.
        spread: whose standard deviation is taken, the "prompt"'s or the "round"'s.
    """

    def __init__(
        self, window: int = 8, minimum: int = 2, epsilon: float = 1e-6, spread: str = "prompt"
    ) -> None:
        self.window, self.minimum, self.epsilon, self.spread = window, minimum, epsilon, spread
        self.rounds: list[dict[str, list[float]]] = []

    def normalise(self, prompts: Sequence[str], rewards: Tensor) -> Tensor:
        """Adds the rewards `(B,)` of a round, and returns them normalised, `(B,)`.

        Raises:
            ValueError: if there are not as many prompts as rewards.
        """
        if rewards.shape != (len(prompts),):
            raise ValueError(f"{len(prompts)} prompts need as many rewards, not {tuple(rewards.shape)}")
        newest: dict[str, list[float]] = {}
        for prompt, reward in zip(prompts, rewards.tolist(), strict=True):
            newest.setdefault(prompt, []).append(reward)
        self.rounds = [*self.rounds, newest][-(self.window + 1) :]
        normalised = torch.empty_like(rewards)
        for prompt in newest:
            recent = torch.tensor([r for past in self.rounds for r in past.get(prompt, [])])
            if len(recent) < self.minimum:
                recent = rewards
            mask = torch.tensor([text == prompt for text in prompts])
            of = recent if self.spread == "prompt" else rewards
            spread = of.double().std(correction=0) + self.epsilon
            normalised[mask] = (deviations(rewards[mask], recent) / spread).to(rewards.dtype)
        return normalised

    def state(self) -> str:
        """The rewards, as JSON for `load`."""
        return json.dumps(self.rounds)

    def load(self, state: str) -> None:
        """Restores the rewards from what `state` returned; raises a `ValueError` of anything else."""
        rounds = json.loads(state)
        rewards = [reward for past in rounds for given in past.values() for reward in given]
        if not all(isinstance(reward, float) for reward in rewards):
            raise ValueError("its statistics are no rewards")
        self.rounds = rounds
