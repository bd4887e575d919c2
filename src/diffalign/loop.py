"""UPDATE: the one loop, ask → sample → score → tell. Who wants to own it calls the learner."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from diffalign.advantages.baselines import are_equal
from diffalign.diffusion.finite import check_finite
from diffalign.diffusion.memory import Pile
from diffalign.learners.contract import Learner, Update
from diffalign.rewards import RewardFunction, score
from diffalign.rewards.overlap import overlapped
from diffalign.rollout import Rollout, contact_sheet


@dataclass(frozen=True)
class Round:
    """What one round did. `rewards` `(B,)` are those of all processes, `images` those of this one (of videos
    uint8, save a search's).

    Attributes:
        round: its number, from 1.
        queries: reward queries so far.
        optimiser_steps: so far.
        sampling_seconds: of sampling and scoring; `seconds` are of all.
    """

    round: int
    queries: int
    optimiser_steps: int
    images: Tensor
    update: Update
    sampling_seconds: float
    seconds: float

    def __repr__(self) -> str:
        mean, best = float(self.rewards.mean()), float(self.rewards.max())
        return f"Round({self.round}: {self.queries} queries, reward {mean:.3g}, best {best:.3g})"

    def _repr_png_(self) -> bytes | None:
        """In a notebook, its pictures."""
        return contact_sheet(self.images)

    @property
    def rewards(self) -> Tensor:
        """Of its samples, with shape `(B,)`."""
        return self.update.rewards

    @property
    def warning(self) -> str | None:
        """What the user should know of it."""
        if len(self.rewards) > 1 and are_equal(self.rewards):
            return f"round {self.round}: all rewards are {self.rewards[0]:.6g}, so that they teach nothing"
        return self.update.warning

    def figures(self) -> dict[str, float | int | list[float] | None]:
        """The numbers, as a line of `metrics.jsonl`."""
        update = self.update
        return {
            "round": self.round,
            "queries": self.queries,
            "reward_mean": float(self.rewards.mean()),
            "reward_best": float(self.rewards.max()),
            "rewards": self.rewards.tolist(),
            "selected": update.selected,
            "optimiser_steps": self.optimiser_steps,
            "loss": update.loss,
            **(asdict(update.diagnostics) if update.diagnostics else {}),
            **update.figures,
            "denoiser_forwards": update.forwards,
            "sampling_seconds": self.sampling_seconds,
            "seconds": self.seconds,
        }


def train(
    learner: Learner, reward: RewardFunction, *, on_batch: Callable[[int], None] | None = None
) -> Iterator[Round]:
    """Learns, or searches, until the queries are spent or it stops; yields a `Round` each.

    Arguments:
        reward: a callable `(images, prompts) -> (B,)`; one batch is scored while the next is made.
        on_batch: called with the number of pictures of each batch that is scored, for a progress bar.

    Raises:
        RewardError: if the reward fails; the learner is as it was before the round, and can go on.
        NotFiniteError: if noise, latents or pictures hold values that are no numbers, where the same holds;
            or if what the round learned does.
    """
    device = getattr(getattr(learner.environment, "pipeline", None), "device", None)
    while not learner.done:
        began = time.perf_counter()
        parts, pictures = list[tuple[Rollout, Tensor]](), Pile()
        batches = learner.sample(learner.ask())
        for batch, scores in overlapped(batches, lambda b: score(reward, b.images, b.prompts), device):
            pictures.add((batch if learner.keeps_pictures else batch.scored()).images)
            parts.append((replace(batch, images=torch.empty(0)), scores))
            if on_batch is not None:
                on_batch(len(scores))
        rollout = Rollout.cat([rollout for rollout, _ in parts])
        rollout = replace(rollout, images=pictures.joined())
        rewards = torch.cat([rewards for _, rewards in parts])
        sampled = time.perf_counter()
        update = learner.tell(rollout, rewards)
        learner.note(update.rewards)
        round = Round(
            round=learner.rounds,
            queries=learner.queries,
            optimiser_steps=learner.optimiser_steps,
            images=rollout.images,
            update=update,
            sampling_seconds=sampled - began,
            seconds=time.perf_counter() - began,
        )
        numbers = {name: value for name, value in round.figures().items() if isinstance(value, int | float)}
        figures = {name: torch.tensor(value, dtype=torch.float64) for name, value in numbers.items()}
        check_finite(f"figures of round {round.round}", figures)
        check_finite(f"parts of the state after round {round.round}", learner.tensors())
        yield round
