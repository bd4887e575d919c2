"""A method as a user holds it: iterate over it for `Round` records, or `run()` it to the end."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.learners.contract import Learner
from diffalign.loop import Round, train
from diffalign.methods.provenance import provenance
from diffalign.rewards import RewardFunction, load_reward
from diffalign.settings.fields import ConfigError, preset
from diffalign.settings.methods import method


class Run:
    """A learner, or a search, and its reward.

    Arguments:
        learner: what learns.
        reward: a callable `(images, prompts) -> (B,)`.
    """

    def __init__(self, learner: Learner, reward: RewardFunction) -> None:
        self.learner, self.reward = learner, reward

    def __iter__(self) -> Iterator[Round]:
        return train(self.learner, self.reward)

    def run(self) -> Any:
        """Runs to the end and returns the result."""
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> Any:
        """What was learned, or found, so far; `result.save(path)` keeps it."""
        return self.learner.result()


def build(name: str, sampler: Sampler, prompts: Sequence[str], config: Any, reward: str) -> Learner:
    """The learner of the method called `name`; artefacts call the reward `reward`."""
    row, metadata = method(name), provenance(sampler, reward)
    if not prompts:
        raise ConfigError("learning needs at least one prompt")
    if row.per_prompt:
        metadata |= {"prompt": prompts[0], "seed": str(config.seed)}
    learner: Learner = import_module(row.learner).build(sampler, prompts, config, metadata)
    return learner


def prepare(
    name: str,
    pipeline: Any,
    prompts: str | Sequence[str],
    reward: RewardFunction | str,
    *,
    preset_name: str = "default",
    num_steps: int = 20,
    guidance_scale: float | None = None,
    batch_size: int = 16,
    call: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Prepares a run of the method called `name`.

    Arguments:
        pipeline: a diffusers pipeline.
        prompts: what the pictures should show.
        reward: a callable `(images, prompts) -> (B,)`, or a registered reward's name.
        preset_name: of the method's settings.
        num_steps, guidance_scale, batch_size: of sampling.
        call: further arguments of the pipeline's call.
        changes: settings of the method to change.
    """
    sampler = Sampler(
        pipeline, num_steps=num_steps, guidance_scale=guidance_scale, batch_size=batch_size, **(call or {})
    )
    if isinstance(reward, str):
        label, reward = reward, load_reward(reward)
    else:
        label = str(getattr(reward, "__name__", type(reward).__name__))
    config = preset(method(name).presets, preset_name, changes)
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    return Run(build(name, sampler, texts, config, label), reward)
