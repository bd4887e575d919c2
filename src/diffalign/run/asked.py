"""What a plan asks for, read and checked before anything is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from diffalign.prompts import load_prompts
from diffalign.prompts.sampling import spread
from diffalign.run.trackers import Tracker
from diffalign.settings.evaluation import JudgeChoice
from diffalign.settings.fields import ConfigError
from diffalign.settings.plan import Plan
from diffalign.settings.reading import is_text
from diffalign.world import WORLD_VIDEO
from diffalign.world.grammar import PromptError, parse


@dataclass(frozen=True)
class Asked:
    """A plan, with what its names stand for.

    Attributes:
        prompts: that are learned from.
        held_out: that are measured on, and so judged.
    """

    plan: Plan
    prompts: tuple[str, ...]
    held_out: tuple[str, ...]
    tracker: Tracker = field(default_factory=Tracker)

    @property
    def measured_on(self) -> str:
        """What `held_out` are: prompts that nothing was learned from, or of those that something was."""
        return "training prompts" if set(self.held_out) <= set(self.prompts) else "held-out prompts"

    @classmethod
    def of(cls, plan: Plan) -> Self:
        """Reads the prompts of `plan`, and checks them and its tracker."""
        names = (plan.prompts, getattr(plan.evaluation, "held_out", None))
        judge, model = plan.evaluation.judge, plan.sampling.model
        prompts, *others = (
            read_prompts(name, plan.reward, judge, model) for name in names if name is not None
        )
        held_out = others[0] if others else spread(prompts)
        return cls(plan, prompts, held_out, Tracker(plan.evaluation.tracker))


def read_prompts(
    given: str | Sequence[str], reward: str = "", judge: JudgeChoice = "none", model: str = ""
) -> tuple[str, ...]:
    """The prompts that are given, or those of the set or file of that name, each once; checked.

    Raises:
        ConfigError: if there is no prompt, or an empty one.
        PromptError: if the reward or the judge cannot read one.
        FileNotFoundError, PromptFileError, UnknownPromptSetError: as `load_prompts`.
    """
    texts = load_prompts(given).texts if isinstance(given, str) else given
    if not texts:
        raise ConfigError("no prompt; write what the pictures should show, such as 'a blue car on the moon'")
    for prompt in texts:
        if not is_text(prompt):
            raise ConfigError(f"the prompt {prompt!r} is no UTF-8 text; write it anew")
        if not prompt.strip():
            raise ConfigError("the prompt is empty; write what the pictures should show")
        if "world-scene" in (reward, judge):
            try:
                parse(prompt, video=model == WORLD_VIDEO)
            except PromptError as error:
                flag = "--reward" if reward == "world-scene" else "--judge"
                error.add_note(f"{flag} world-scene needs a prompt in the world's language")
                raise
    return tuple(dict.fromkeys(texts))
