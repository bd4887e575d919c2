"""Fields that check themselves: a setting's type, its bounds and its choices stand in its annotation."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from diffalign.settings.choices import unknown
from diffalign.settings.reading import is_number, is_text


class ConfigError(ValueError):
    """A setting is out of its range, or contradicts another; the message says what is allowed."""


@dataclass(frozen=True)
class Bounds:
    """What a number may be; None does not bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        limits = {name.replace("_", " "): getattr(self, name) for name in self.__dataclass_fields__}
        return " and ".join(f"{name} {limit}" for name, limit in limits.items() if limit is not None)


Positive = Annotated[int, Bounds(at_least=1)]
NotNegative = Annotated[int, Bounds(at_least=0)]
Seed = Annotated[int, Bounds(at_least=0, at_most=2**63 - 1)]
AnySeed = Annotated[int, Bounds(at_least=-(2**63), at_most=2**63 - 1)]  # as torch takes them
#: Beyond it float32 overflows where numbers are squared.
GREATEST = 1e16
PositiveFloat = Annotated[float, Bounds(above=0, at_most=GREATEST)]
NotNegativeFloat = Annotated[float, Bounds(at_least=0, at_most=GREATEST)]
Share = Annotated[float, Bounds(above=0, below=1)]
WholeShare = Annotated[float, Bounds(at_least=0, at_most=1)]


class Settings:
    """A frozen dataclass whose fields are checked when it is made; a subclass adds what ties fields.

    Raises:
        ConfigError: if a value has another type, is out of its bounds, or is none of the choices.
    """

    def __post_init__(self) -> None:
        kind: Any = type(self)
        for name, hint in _hints(kind).items():
            if get_origin(hint) is tuple and isinstance(getattr(self, name), list):  # of a file
                object.__setattr__(self, name, tuple(getattr(self, name)))
            _check(name, getattr(self, name), hint)


@lru_cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def _check(name: str, value: Any, hint: Any) -> None:
    if get_origin(hint) in (UnionType, Union):
        if value is None:
            return
        (hint,) = (part for part in get_args(hint) if part is not NoneType)
    extras: list[Any] = []
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            choices = ", ".join(map(str, get_args(hint)))
            raise ConfigError(f"{name} must be one of {choices}, not {value!r}")
        return
    if get_origin(hint) is tuple:
        if not isinstance(value, tuple):
            raise ConfigError(f"{name} must be a list, not {value!r}")
        for element in value:
            _check(name, element, get_args(hint)[0])
        return
    allowed = (int, float) if hint is float else hint
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise ConfigError(f"{name} must be of the type {hint.__name__}, not {value!r}")
    if hint is str and not is_text(value):
        raise ConfigError(f"{name} must be UTF-8 text, not {value!r}")
    if hint is float and not is_number(value):
        raise ConfigError(f"{name} must be a finite number, not {value}")
    for bound in extras:
        if isinstance(bound, Bounds) and value not in bound:
            raise ConfigError(f"{name} must be {bound}, not {value}")


S = TypeVar("S", bound=Any)


def preset(presets: Mapping[str, S], name: str, changes: Mapping[str, Any] | None = None) -> S:
    """The settings called `name`, with `changes`.

    Raises:
        ConfigError: if there is no such preset or setting, or a change is out of range.
    """
    if name not in presets:
        raise ConfigError(unknown("preset", name, presets))
    known = [field.name for field in fields(presets[name])]
    for change in changes or {}:
        if change not in known:
            raise ConfigError(unknown("setting", change, known))
    return replace(presets[name], **changes or {})


def pick(kind: type[S], given: Mapping[str, Any]) -> S:
    """A `kind` of those of `given` that are fields of it; what is not given keeps its default.

    Raises:
        ConfigError: if a value does not fit, or one without default is missing.
    """
    own = {field.name: given[field.name] for field in fields(kind) if field.name in given}
    for field in fields(kind):
        if field.name not in own and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{field.name} is missing")
    made: S = kind(**own)
    return made


def check_basis(name: str) -> None:
    """Raises a `ConfigError` if there is no basis of this name."""
    if not re.fullmatch(r"identity|dct[1-9]\d*", name):
        raise ConfigError(f"basis must be identity, or dctK for the K×K lowest frequencies, not {name!r}")
