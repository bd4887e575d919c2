"""A method as a user holds it: iterate over it for `Round` records, or `run()` it to the end."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from diffalign.diffusion import Sampler, load_pipeline
from diffalign.diffusion.pipeline import with_ddim
from diffalign.learners.contract import Learner
from diffalign.loop import Round, train
from diffalign.methods.provenance import provenance
from diffalign.rewards import RewardFunction, load_reward
from diffalign.settings.choices import unknown
from diffalign.settings.fields import ConfigError
from diffalign.settings.fields import preset as settings_called
from diffalign.settings.methods import method
from diffalign.settings.reading import is_text
from diffalign.settings.sampling import NAMED, Sampling, Scheduler


class Run:
    """A learner, or a search, and its reward.

    Arguments:
        learner: what learns.
        reward: a callable `(images, prompts) -> (B,)`.
        callback: called with the `Round` of each round.
    """

    def __init__(
        self, learner: Learner, reward: RewardFunction, callback: Callable[[Round], Any] | None = None
    ) -> None:
        self.learner, self.reward, self.callback = learner, reward, callback
        self._last: Round | None = None

    def __repr__(self) -> str:
        return f"Run({self.learner!r})"

    def _repr_png_(self) -> bytes | None:
        """In a notebook, the pictures of the last round."""
        return None if self._last is None else self._last._repr_png_()

    def __iter__(self) -> Iterator[Round]:
        if self.learner.done:
            finished = f"{self!r} is finished: run.result is what it learned; another run begins anew"
            warnings.warn(finished, stacklevel=2)
        return self._rounds()

    def _rounds(self) -> Iterator[Round]:
        for warning in () if self.learner.rounds else self.learner.warnings:
            warnings.warn(warning, stacklevel=2)
        for round in train(self.learner, self.reward):
            self._last = round
            if round.warning:
                warnings.warn(round.warning, stacklevel=2)
            if self.callback is not None:
                self.callback(round)
            yield round

    def run(self) -> Any:
        """Runs to the end and returns the result."""
        for _ in () if self.learner.done else self:
            pass
        return self.result

    @property
    def result(self) -> Any:
        """What was learned, or found, so far; `result.save(path)` keeps it."""
        return self.learner.result()


def opened(pipeline: Any) -> Any:
    """A pipeline, or the one that `load_pipeline` loads by a name."""
    return load_pipeline(pipeline) if isinstance(pipeline, str | Path) else pipeline


def build(name: str, sampler: Sampler, prompts: Sequence[str], config: Any, reward: str) -> Learner:
    """The learner of the method called `name`; artefacts call the reward `reward`."""
    row, metadata = method(name), provenance(sampler, reward)
    if not prompts or not all(map(is_text, prompts)):
        raise ConfigError("learning needs at least one prompt, and each to be text")
    if row.per_prompt:
        metadata |= {"prompt": prompts[0], "seed": str(config.seed)}
    learner: Learner = import_module(row.learner).build(sampler, prompts, config, metadata)
    return learner


def prepare(
    name: str, pipeline: Any, prompts: str | Sequence[str], reward: RewardFunction | str, **settings: Any
) -> Run:
    """A run of the method called `name`; arguments as of `prepare_runs`."""
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    return prepare_runs(name, pipeline, [texts], reward, **settings)[0]


def prepare_runs(
    name: str,
    pipeline: Any,
    groups: Sequence[Sequence[str]],
    reward: RewardFunction | str,
    *,
    preset: str = "default",
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    scheduler: Scheduler | None = None,
    batch_size: int = 16,
    call: dict[str, Any] | None = None,
    callback: Callable[[Round], Any] | None = None,
    **changes: Any,
) -> list[Run]:
    """Prepares runs of the method called `name` with the same pipeline and reward, one a group of prompts.

    Arguments:
        pipeline: a diffusers pipeline, or what `load_pipeline` takes; where DDIM is asked for, another of its
            components samples.
        groups: what the pictures of each run should show.
        reward: a callable `(images, prompts) -> (B,)`, or a registered reward's name.
        preset: of the method's settings, and of settings of sampling where it sets some.
        num_steps, guidance_scale, scheduler: of sampling; those of the preset if None, and where it sets
            none the defaults of `Sampling`: 20 steps, the pipeline's own guidance and scheduler. With a
            preset that sets guidance, the pipeline's own must be given as a number.
        batch_size: pictures at a time.
        call: further arguments of the pipeline's call; `height`, `negative_prompt` and others that are flags
            of the command line may stand beside it.
        callback: called with the `Round` of each round.
        changes: settings of the method to change.
    """
    row = method(name)
    named = {key: changes.pop(key) for key in NAMED if key in changes}
    known = [field.name for field in fields(row.config)]
    for change in changes:
        if change not in known:
            others = "preset", "num_steps", "guidance_scale", "scheduler", "batch_size", "call", "callback"
            raise ConfigError(unknown("setting", change, [*known, *others, *NAMED]))
    config = settings_called(row.presets, preset, changes)
    given = {"num_steps": num_steps, "guidance_scale": guidance_scale, "scheduler": scheduler}
    given = {key: value for key, value in given.items() if value is not None}
    sampling = Sampling(batch_size=batch_size, **{**row.sampling.get(preset, {}), **given})
    pipeline = opened(pipeline)
    sampler = Sampler(
        with_ddim(pipeline) if sampling.scheduler == "ddim" else pipeline,
        num_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_scale,
        batch_size=batch_size,
        **{**(call or {}), **named},
    )
    if isinstance(reward, str):
        label, reward = reward, load_reward(reward)
    else:
        label = str(getattr(reward, "__name__", type(reward).__name__))
    return [Run(build(name, sampler, prompts, config, label), reward, callback) for prompts in groups]
