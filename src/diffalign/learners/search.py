"""What every search does: it keeps the best pictures, and learns nothing else."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from diffalign.diffusion.sampler import seeded_noise
from diffalign.files import NOISES
from diffalign.learners.contract import Learner, Request, Update, check_rewards
from diffalign.learners.result import SearchResult
from diffalign.rollout import Rollout, sample_noise
from diffalign.settings.search import SearchConfig


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
    learned, artefact, one_prompt, keeps_pictures = "kept pictures", NOISES, True, True
    #: The setting that says how many samples are drawn before the search first moves, if it ever does.
    moves_after: ClassVar[str | None] = None

    def prepare(self) -> None:
        latents = torch.empty(0, *self.environment.latent_shape)
        self.best = SearchResult(latents, torch.empty(0), torch.empty(0), ())

    @property
    def queries(self) -> int:
        return len(self.best.previews) + len(self.best.rewards)

    @property
    def searched(self) -> int:
        """How many samples the kept ones are chosen from."""
        return self.total

    @property
    def warnings(self) -> tuple[str, ...]:
        """That so few samples leave the search no time to move, if they do."""
        name, algorithm = self.moves_after, self.config.algorithm
        if name is None or (first := getattr(self.config, name)) < self.searched:
            return ()
        return (
            f"{algorithm} moves after {first} samples, but draws {self.searched} in all: it is no more than "
            f"best-of-n; raise queries, or lower {name}",
        )

    def sample(self, request: Request) -> Iterator[Rollout]:
        x_T = self.candidates(self.draw(request))
        yield sample_noise(self.environment, self.prompts[0], x_T, request.groups)

    def draw(self, request: Request) -> Tensor:
        """Standard normal noise of the samples that were asked for."""
        return seeded_noise(self.environment.latent_shape, self.config.seed, "search", request.groups)

    def candidates(self, epsilon: Tensor) -> Tensor:
        """The noise to try, of standard normal noise, both `(B, *latent)`."""
        return epsilon

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        check_rewards(rollout, rewards)
        self.best = self.best.merged(rollout.x_T, rollout.images, rewards, self.config.keep)
        self.rounds += 1
        return self.update(rollout, rewards)

    def tensors(self) -> dict[str, Tensor]:
        best = self.best
        kept = {"x_T": best.x_T, "images": best.images, "rewards": best.rewards, "previews": best.previews}
        return {**super().tensors(), **kept, "indices": torch.tensor(best.indices, dtype=torch.int64)}

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        super().restore(tensors, strings)
        indices, latent = tuple(tensors["indices"].tolist()), tuple(self.environment.latent_shape)
        few = not set(indices) <= set(range(len(tensors["rewards"])))
        if few or tensors["x_T"].shape != (len(indices), *latent):
            raise ValueError("its kept pictures are not those of its rewards")
        kept = tensors["x_T"], tensors["images"], tensors["rewards"], indices
        self.best = SearchResult(*kept, previews=tensors["previews"])

    def result(self) -> SearchResult:
        return replace(self.best, metadata=self.provenance())

    def kept(self) -> SearchResult:
        return self.best
