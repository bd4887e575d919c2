"""A method as a user holds it: iterate over it for `Round` records, or `run()` it to the end."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from diffalign.diffusion import Sampler
from diffalign.diffusion.pipeline import with_ddim
from diffalign.learners.contract import Learner
from diffalign.loop import Round, train
from diffalign.methods.provenance import provenance
from diffalign.rewards import RewardFunction, load_reward
from diffalign.settings.fields import ConfigError, preset
from diffalign.settings.methods import method
from diffalign.settings.sampling import Sampling, Scheduler


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
    num_steps: int | None = None,
    guidance_scale: float | None = None,
    scheduler: Scheduler | None = None,
    batch_size: int = 16,
    call: dict[str, Any] | None = None,
    **changes: Any,
) -> Run:
    """Prepares a run of the method called `name`.

    Arguments:
        pipeline: a diffusers pipeline; where DDIM is asked for, another of its components samples.
        prompts: what the pictures should show.
        reward: a callable `(images, prompts) -> (B,)`, or a registered reward's name.
        preset_name: of the method's settings, and of settings of sampling where it sets some.
        num_steps, guidance_scale, scheduler: of sampling; those of the preset if None, and where it sets
            none the defaults of `Sampling`: 20 steps, the pipeline's own guidance and scheduler. With a
            preset that sets guidance, the pipeline's own must be given as a number.
        batch_size: pictures at a time.
        call: further arguments of the pipeline's call.
        changes: settings of the method to change.
    """
    row = method(name)
    config = preset(row.presets, preset_name, changes)
    given = {"num_steps": num_steps, "guidance_scale": guidance_scale, "scheduler": scheduler}
    given = {key: value for key, value in given.items() if value is not None}
    sampling = Sampling(batch_size=batch_size, **{**row.sampling.get(preset_name, {}), **given})
    sampler = Sampler(
        with_ddim(pipeline) if sampling.scheduler == "ddim" else pipeline,
        num_steps=sampling.num_steps,
        guidance_scale=sampling.guidance_scale,
        batch_size=batch_size,
        **(call or {}),
    )
    if isinstance(reward, str):
        label, reward = reward, load_reward(reward)
    else:
        label = str(getattr(reward, "__name__", type(reward).__name__))
    texts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
    return Run(build(name, sampler, texts, config, label), reward)
