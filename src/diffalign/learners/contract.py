"""The contract of all that spends reward queries: ask → sample → tell, and a state to go on from."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn, optim

from diffalign.learners.optimisers import load_optimiser, optimiser_tensors
from diffalign.learners.processes import Processes
from diffalign.learners.result import SearchResult
from diffalign.objectives.diagnostics import Diagnostics
from diffalign.policies.noise import NoiseDistribution
from diffalign.rollout import INITIAL_NOISE, Environment, Rollout
from diffalign.settings.fields import ConfigError
from diffalign.settings.reading import is_count, parse_json

#: Tensors and strings, as a file of tensors with a header holds them.
State = tuple[dict[str, Tensor], dict[str, str]]


@dataclass(frozen=True)
class Request:
    """The samples of a round.

    Attributes:
        groups: the numbers of the groups of samples; a group has one sample, or one a branch.
        prompts: one a group.
        interval: the decisions that are kept, numbered from the noise.
        shards: which groups must be sampled by the same process, as positions in `groups`.
    """

    groups: range
    prompts: tuple[str, ...]
    interval: range = INITIAL_NOISE
    shards: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Update:
    """What learning from a round did.

    Attributes:
        prompts: one a sample, of all processes.
        rewards: of the samples of all processes, with shape `(B,)`.
        forwards: denoiser evaluations of sampling and learning, guidance counted.
        loss: a mean over the samples; None where nothing is minimised.
        diagnostics: likewise; None if nothing was learned from.
        selected: samples that were learned from.
        optimiser_steps: steps that were taken.
        figures: what else this learner has to say, for the metrics.
        warning: what the user should know of this round.
    """

    prompts: tuple[str, ...]
    rewards: Tensor
    forwards: int
    loss: float | None = None
    diagnostics: Diagnostics | None = None
    selected: int = 0
    optimiser_steps: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)
    warning: str | None = None


def check_rewards(rollout: Rollout, rewards: Tensor) -> None:
    """What every `tell` begins with, as other shapes might broadcast.

    Raises:
        ValueError: if there is not one finite reward a sample.
    """
    samples = len(rollout.indices)
    if rewards.shape != (samples,) or not rewards.isfinite().all():
        raise ValueError(
            f"tell wants one finite reward a sample, ({samples},), not {tuple(rewards.shape)} with "
            f"{int(rewards.isfinite().sum())} finite ones"
        )


class Learner(ABC):
    """What learns, or searches, by reward queries.

    Arguments:
        environment: from initial noise to pictures, such as a `Sampler`.
        prompts: what the pictures should show.
        config: its settings, a frozen dataclass with `queries` in all, and a `seed`.
        metadata: what the result depends on beside the settings (model, steps, reward …); strings.

    Attributes:
        rounds, optimiser_steps: so far.

    Raises:
        ConfigError: if there are no prompts, more than the one that is learned from, or one is empty.
    """

    #: Settings of time and memory alone: a state may be loaded with others.
    free: ClassVar[tuple[str, ...]] = ()
    #: What the pictures after learning are called.
    learned: ClassVar[str]
    #: The artefact's name in the run's folder.
    artefact: ClassVar[str]
    #: Whether it learns from one prompt alone.
    one_prompt: ClassVar[bool] = False
    #: Whether it keeps pictures, which then stay as exact as they were scored.
    keeps_pictures: ClassVar[bool] = False
    #: Attributes that a state holds: tensors by their name, modules and optimisers by what is in them.
    remembered: tuple[str, ...] = ()

    def __init__(
        self,
        environment: Environment,
        prompts: Sequence[str],
        config: Any,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        if not prompts or not all(prompt.strip() for prompt in prompts):
            raise ConfigError("learning needs at least one prompt, none of them empty")
        if self.one_prompt and len(prompts) != 1:
            raise ConfigError(f"one prompt at a time is learned from, or searched, not {len(prompts)}")
        self.environment, self.prompts, self.config = environment, tuple(prompts), config
        self.metadata = dict(metadata or {})
        self.processes = Processes()
        self.rounds = self.optimiser_steps = 0
        self.highest, self.stale = -math.inf, 0  # reward of a round, and rounds since
        self.prepare()

    def __repr__(self) -> str:
        prompts = repr(self.prompts[0]) if len(self.prompts) == 1 else f"{len(self.prompts)} prompts"
        reward = f" of {self.metadata['reward']}" if "reward" in self.metadata else ""
        return f"{type(self).__name__}({prompts}, {self.queries} of {self.total} queries{reward})"

    def prepare(self) -> None:  # noqa: B027
        """Makes what this learner has beside what all have."""

    @property
    @abstractmethod
    def queries(self) -> int:
        """Reward queries so far."""

    @property
    def total(self) -> int:
        """Reward queries in all."""
        return int(self.config.queries)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What one should know before it begins."""
        return ()

    @property
    def done(self) -> bool:
        """Whether all queries are spent, or it has stopped."""
        return self.queries >= self.total or self.stopped is not None

    def note(self, rewards: Tensor) -> None:
        """Remembers, for `stopped`, whether a round's rewards `(B,)` are better than those before; those of
        the first say nothing of what is learned, only of what a search found."""
        if self.rounds <= 1 and not self.keeps_pictures:
            return
        reward = float(rewards.max() if self.keeps_pictures else rewards.mean())
        self.stale = 0 if reward > self.highest else self.stale + 1
        self.highest = max(self.highest, reward)

    @property
    def stopped(self) -> str | None:
        """Why it ends before its queries are spent, if it does."""
        limit, patience = getattr(self.config, "stop_at", None), getattr(self.config, "patience", 0)
        if limit is not None and self.highest >= limit:
            return f"the reward has reached {self.highest:.4g}, and stop_at is {limit:.4g}"
        if patience and self.stale >= patience:
            return (
                f"no better reward than {self.highest:.4g} in {self.stale} round{'s' * (self.stale > 1)}, "
                f"and patience is {patience}"
            )
        return None

    @abstractmethod
    def ask(self) -> Request:
        """The samples that the next round wants; the same until `tell` is called."""

    @abstractmethod
    def sample(self, request: Request) -> Iterator[Rollout]:
        """This process's part of the samples, batch by batch; each is scored while the next is made."""

    @abstractmethod
    def tell(self, rollout: Rollout, rewards: Tensor) -> Update:
        """Learns from the samples that were asked for and their rewards `(B,)`.

        Raises:
            ValueError: if there is not one finite reward a sample; the learner is as it was.
        """

    def next_samples(self, number: int) -> Request:
        """Of the one prompt, as many as `number` or as queries are left."""
        numbers = range(self.queries, min(self.queries + number, self.total))
        return Request(numbers, self.prompts * len(numbers))

    def update(self, rollout: Rollout, rewards: Tensor, *learned: Any, **more: Any) -> Update:
        """The `Update` of a round that this process alone sampled, all pictures with all steps."""
        return Update(rollout.prompts, rewards, len(rewards) * self.environment.forwards, *learned, **more)

    def tensors(self) -> dict[str, Tensor]:
        """All that was learned, and what learning on needs."""
        tensors: dict[str, Tensor] = {}
        for name in self.remembered:
            match getattr(self, name):
                case nn.Module() as module:
                    tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
                case optim.Optimizer() as optimiser:
                    tensors |= optimiser_tensors(name, optimiser)
                case tensor:
                    tensors[name] = tensor
        return tensors

    def restore(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        """Puts back what `tensors` and `strings` returned."""
        for name in self.remembered:
            match getattr(self, name):
                case nn.Module() as module:
                    module.load_state_dict({key: tensors[f"{name}.{key}"] for key in module.state_dict()})
                case optim.Optimizer() as optimiser:
                    load_optimiser(name, optimiser, tensors)
                case _:
                    own, tensor = getattr(self, name), tensors[name]
                    # the first grows with the rounds
                    if (tensor.dtype, tensor.ndim, tensor.shape[1:]) != (own.dtype, own.ndim, own.shape[1:]):
                        raise ValueError(f"{name} has the shape {tuple(tensor.shape)}")
                    setattr(self, name, tensor.clone())  # as it may be changed in place

    def strings(self) -> dict[str, str]:
        """What learning on needs beside tensors and counts."""
        return {}

    def state(self) -> State:
        """Everything that `load` needs to go on to the same result."""
        counts = {
            name: str(getattr(self, name)) for name in ("rounds", "optimiser_steps", "highest", "stale")
        }
        return self.tensors(), {**counts, **self.strings(), "learner": self._identity()}

    def load(self, tensors: Mapping[str, Tensor], strings: Mapping[str, str]) -> None:
        """Restores what `state` returned.

        Raises:
            ConfigError: if it is the state of a learner with other settings.
        """
        saved, own = dict(parse_json(strings.get("learner", "{}"))), json.loads(self._identity())
        differing = [
            f"{name} {saved.get(name)!r} then, {own.get(name)!r} now"
            for name in {**saved, **own}
            if saved.get(name) != own.get(name)
        ]
        if differing:
            raise ConfigError(f"the saved state is that of another learner: {'; '.join(differing)}")
        rounds, steps = parse_json(strings["rounds"]), parse_json(strings["optimiser_steps"])
        if not is_count(rounds) or not is_count(steps):
            raise ValueError(f"it counts {rounds} rounds and {steps} steps")
        self.restore(tensors, strings)
        self.rounds, self.optimiser_steps = rounds, steps
        self.highest, self.stale = float(strings.get("highest", -math.inf)), int(strings.get("stale", 0))

    def _identity(self) -> str:
        free = (*self.free, "stop_at", "patience")
        settings = {name: value for name, value in asdict(self.config).items() if name not in free}
        kind, latent = type(self).__name__, list(self.environment.latent_shape)
        return json.dumps({"learner": kind, "latent": latent, "prompts": self.prompts, **settings})

    def provenance(self) -> dict[str, str]:
        """The metadata of the result."""
        return {**self.metadata, "queries": str(self.queries)}

    @abstractmethod
    def result(self) -> Any:
        """What was learned so far, with its provenance."""

    def save(self, folder: Path) -> Path:
        """Writes what was learned into `folder`, atomically; returns the file or folder."""
        self.result().save(folder / self.artefact)
        return folder / self.artefact

    def noise(self, prompt: str) -> NoiseDistribution:
        """What fresh pictures of `prompt` start from; N(0, I) unless noise is what is learned."""
        return NoiseDistribution.standard(self.environment.latent_shape)

    def frozen(self) -> AbstractContextManager[None]:
        """Within it pictures are made as before any learning; nothing to do where the model stays frozen."""
        return nullcontext()

    def release(self) -> None:  # noqa: B027
        """Gives the model back as it was before any learning, for another run; what was not saved is lost."""

    def kept(self) -> SearchResult | None:
        """The pictures that a search keeps; None where fresh ones can be made of what was learned."""
        return None

    def record(self) -> dict[str, str | int | float | None]:
        """What the summary says of the run, for its reader and its report."""
        return {}
