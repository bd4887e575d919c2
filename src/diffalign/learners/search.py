"""What every search does: it keeps the best pictures, and learns nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from diffalign.files import NOISES
from diffalign.learners.contract import Learner, Update, check_rewards
from diffalign.learners.result import SearchResult
from diffalign.rollout import Environment, Rollout
from diffalign.settings.fields import ConfigError
from diffalign.settings.search import SearchConfig

STREAM = "search"  # of random numbers


class SearchLearner(Learner):
    """The best pictures of one prompt so far.

    Its reward is measured on the very pictures that the reward selected, and so is too good: what the
    judge says of them is the honest figure.

    Attributes:
        best: what is kept.

    Raises:
        ConfigError: if there is not one prompt.
    """

    config: SearchConfig
    learned = "kept pictures"

    def __init__(
        self,
        environment: Environment,
        prompts: Sequence[str],
        config: SearchConfig,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(environment, prompts, config, metadata)
        if len(self.prompts) != 1:
            raise ConfigError(f"one prompt is searched at a time, not {len(self.prompts)}")
        self.best = SearchResult(
            torch.empty(0, *environment.latent_shape), torch.empty(0), torch.empty(0), ()
        )
        self.prepare()

    def prepare(self) -> None:
        """What a search needs beside what it keeps; most need nothing."""

    @property
    def queries(self) -> int:
        """Reward queries so far."""
        return len(self.best.rewards)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Keeps the best."""
        check_rewards(rollout, rewards)
        self.best = self.best.merged(rollout.x_T, rollout.images, rewards, self.config.keep)
        self.rounds += 1
        return Update(rollout.prompts, rewards, len(rewards) * self.environment.forwards)

    def tensors(self) -> dict[str, Tensor]:
        """What is kept, and all rewards so far."""
        best = self.best
        indices = torch.tensor(best.indices, dtype=torch.int64)
        return {"x_T": best.x_T, "images": best.images, "rewards": best.rewards, "indices": indices}

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        """Puts back what `tensors` returned."""
        indices = tuple(tensors["indices"].tolist())
        self.best = SearchResult(tensors["x_T"], tensors["images"], tensors["rewards"], indices)

    def result(self) -> SearchResult:
        """What is kept, with its provenance as metadata."""
        return replace(self.best, metadata={**self.metadata, "queries": str(self.queries)})

    def kept(self) -> SearchResult:
        """What is kept."""
        return self.best

    def save(self, folder: Path) -> Path:
        """Writes noises.safetensors."""
        self.result().save(folder / NOISES)
        return folder / NOISES
