"""Searches on cheap previews of few steps; the noise of the best is drawn with all steps at the end."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from diffalign.learners.contract import Request, Update, check_rewards
from diffalign.learners.result import SearchResult
from diffalign.learners.search import SearchLearner
from diffalign.rollout import Rollout, sample_noise


class PreviewSearch(SearchLearner):
    """Pictures of the noise of the best previews.

    What is kept are the best previews until their noise is drawn with all steps; the rewards of previews,
    which cannot be compared with those of pictures, are then kept apart. Where a preview takes as many steps
    as a picture it is one, and none is drawn twice.

    Attributes:
        preview: a sampler of fewer steps; `environment` itself unless it is set.
    """

    moves_after = "population"

    def prepare(self) -> None:
        super().prepare()
        self.preview = self.environment

    @property
    def redrawn(self) -> int:
        """How many of the previews are drawn again as pictures."""
        return 0 if self.preview is self.environment else self.config.keep

    @property
    def searched(self) -> int:
        return self.total - self.redrawn

    @property
    def previewing(self) -> bool:
        """Whether the next samples are previews."""
        return self.queries < self.searched and self.stopped is None

    @property
    def done(self) -> bool:
        """Not before the best previews are drawn, where they are to be."""
        return super().done and not (self.redrawn and not len(self.best.previews))

    def note(self, rewards: Tensor) -> None:
        """Of previews: what pictures score at the end undoes no stop."""
        if not len(self.best.previews):
            super().note(rewards)

    def ask(self) -> Request:
        """A population, and at last the kept ones as pictures."""
        previews = min(self.config.population, self.searched - self.queries)
        return self.next_samples(previews if self.previewing else len(self.best.x_T))

    def sample(self, request: Request) -> Iterator[Rollout]:
        if self.previewing:
            x_T = self.candidates(self.draw(request))
            yield sample_noise(self.preview, self.prompts[0], x_T, request.groups)
        else:
            yield sample_noise(self.environment, self.prompts[0], self.best.x_T, request.groups)

    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Keeps the best and moves to where they are, or orders the pictures."""
        if self.previewing:
            update = super().tell(rollout, rewards)
            self.move(rollout.x_T, rewards)
            forwards, previews = len(rewards) * self.preview.forwards, len(rewards) if self.redrawn else 0
            return replace(update, forwards=forwards, figures={"previews": previews})
        check_rewards(rollout, rewards)
        order = rewards.argsort(descending=True, stable=True)
        kept, indices = (rollout.x_T[order], rollout.images[order]), tuple(order.tolist())
        self.best = SearchResult(*kept, rewards, indices, previews=self.best.rewards)
        self.rounds += 1
        return self.update(rollout, rewards, figures={"previews": 0})

    @abstractmethod
    def move(self, x_T: Tensor, rewards: Tensor) -> None:
        """Learns where to draw the next population, of this one's noise `(B, *latent)` and rewards `(B,)`."""
