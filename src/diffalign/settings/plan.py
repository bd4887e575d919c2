"""All settings of a run: what config.yaml holds, and a command line asks for."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from diffalign.settings.choices import unknown
from diffalign.settings.fields import ConfigError, pick
from diffalign.settings.methods import method
from diffalign.settings.sampling import Sampling


def own_reward(model: str) -> str:
    """The reward where none is named: of the embedded world, the one that reads what `model` makes."""
    return "world-scene" if model == "world-video" else "world-clip"


@dataclass(frozen=True)
class Plan:
    """A run.

    Attributes:
        method: a name of `METHODS`.
        prompts: the prompts themselves, or the name of a set or file.
        learning: settings of the method's class.
        evaluation: likewise.
        sampling: how pictures are made.
        reward: a name of `REWARDS`, or `module:function`; without one, the model's `own_reward`.
        preset: that `learning` and `sampling` started from.
    """

    method: str
    prompts: str | tuple[str, ...]
    learning: Any
    evaluation: Any
    sampling: Sampling
    reward: str = ""
    preset: str = "default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "reward", self.reward or own_reward(self.sampling.model))

    def mapping(self) -> dict[str, Any]:
        """The content of `config.yaml`."""
        about: dict[str, Any] = {"method": self.method}
        if method(self.method).per_prompt:
            about["prompt"] = self.prompts[0]
        else:
            about["prompts"] = self.prompts if isinstance(self.prompts, str) else list(self.prompts)
        about |= {"reward": self.reward, "preset": self.preset}
        return {**about, **asdict(self.sampling), **asdict(self.learning), **asdict(self.evaluation)}

    @classmethod
    def of(cls, mapping: Mapping[str, Any]) -> Self:
        """What `mapping` returned.

        Raises:
            ConfigError: if a setting is unknown, missing, or out of its range.
        """
        row, given = method(str(mapping.get("method", "none"))), dict(mapping)
        key = "prompt" if row.per_prompt else "prompts"
        parts = {"learning": row.config, "evaluation": row.evaluation, "sampling": Sampling}
        known = ["method", key, "reward", "preset"]
        known += [field.name for kind in parts.values() for field in fields(kind)]
        for name in given:
            if name not in known:
                raise ConfigError(unknown("setting", str(name), known))
        prompts: Any = given.get(key)
        reward = given.get("reward", own_reward(str(given.get("model"))))
        texts = prompts if isinstance(prompts, list) and not row.per_prompt else [prompts]
        for name, values in ((key, texts or [""]), ("reward", [reward])):
            if not all(isinstance(text, str) and text.strip() for text in values):
                raise ConfigError(f"{name} must be text, not {given.get(name)!r}")
        if (chosen := given.get("preset", "default")) not in list(row.presets):
            raise ConfigError(unknown("preset", str(chosen), row.presets))
        return cls(
            str(given["method"]),
            tuple(texts) if row.per_prompt or isinstance(prompts, list) else prompts,
            reward=reward,
            preset=chosen,
            **{name: pick(kind, given) for name, kind in parts.items()},
        )

    def record(self) -> dict[str, str | int | float | None]:
        """What the summary says of the run."""
        return {
            "method": self.method,
            "seed": self.learning.seed,
            "num_steps": self.sampling.num_steps,
            "scheduler": self.sampling.scheduler,
            "batch_size": self.sampling.batch_size,
            "preset": self.preset,
            "command": self.command(),
        }

    def command(self) -> str:
        """The command line that asks for this run; what is as by default is left out."""
        row = method(self.method)
        defaults = {**asdict(Sampling()), **asdict(row.presets[self.preset]), **asdict(row.evaluation())}
        defaults |= {
            **row.sampling.get(self.preset, {}),
            "method": self.method,
            "reward": own_reward(self.sampling.model),
            "preset": "default",
        }
        words, prompts = ["diffalign", self.method], list[str]()
        for name, value in self.mapping().items():
            flag = "--" + name.replace("_", "-")
            if name == "prompt" or (name == "prompts" and isinstance(value, list)):
                prompts = [value] if isinstance(value, str) else value
            elif name == "prompts" or value != defaults.get(name):
                if isinstance(value, bool):
                    words.append(flag if value else flag.replace("--", "--no-", 1))
                else:
                    words += [
                        word
                        for each in (value if isinstance(value, list | tuple) else [value])
                        for word in (flag, str(each))
                    ]
        if any(text.startswith("-") for text in prompts):  # which else were flags
            return shlex.join([*words, "--", *prompts])
        return shlex.join([*words[:2], *prompts, *words[2:]])
