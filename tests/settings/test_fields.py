"""Fields that check themselves."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest

from diffalign.settings.fields import Bounds, ConfigError, Positive, Seed, Settings, check_basis, pick, preset
from diffalign.settings.find import PRESETS


@dataclass(frozen=True)
class Own(Settings):
    number: Positive
    share: Annotated[float, Bounds(above=0, at_most=1)] = 0.5
    kind: Literal["a", "b"] = "a"
    flag: bool = False
    name: str | None = None
    limit: Annotated[float, Bounds(below=3)] | None = None
    seed: Seed = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": 0}, "number must be at least 1, not 0"),
        ({"number": 1.5}, "number must be of the type int, not 1.5"),
        ({"number": True}, "number must be of the type int, not True"),
        ({"share": 0}, "share must be above 0 and at most 1, not 0"),
        ({"share": float("nan")}, "share must be a finite number, not nan"),
        ({"share": "half"}, "share must be of the type float"),
        ({"kind": "c"}, "kind must be one of a, b, not 'c'"),
        ({"flag": 1}, "flag must be of the type bool, not 1"),
        ({"name": 3}, "name must be of the type str, not 3"),
        ({"name": "\udcff"}, "name must be UTF-8 text, not"),
        ({"limit": 3.0}, r"limit must be below 3, not 3\.0"),
        ({"seed": 2**63}, "seed must be at least 0 and at most 9223372036854775807"),
    ],
)
def test_what_is_given_and_what_is_allowed_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Own(**{"number": 1, **change})


def test_what_fits_is_taken() -> None:
    own = Own(2, 1, "b", True, "x", -1.0)
    assert (own.number, own.share, own.kind, own.flag) == (2, 1, "b", True)


def test_unknown_presets_and_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'paper'"):
        preset(PRESETS, "papr")
    with pytest.raises(ConfigError, match=r"unknown setting 'querys'.*did you mean 'queries'"):
        preset(PRESETS, "paper", {"querys": 3})
    assert preset(PRESETS, "paper", {"queries": 3}).queries == 3
    assert preset(PRESETS, "paper") == PRESETS["paper"]


def test_a_setting_that_has_no_default_must_be_given() -> None:
    assert pick(Own, {"number": 3, "other": 1}) == Own(3)
    with pytest.raises(ConfigError, match="number is missing"):
        pick(Own, {"share": 1.0})


@pytest.mark.parametrize("name", ["fourier", "dct0", "dct", "dct3x", ""])
def test_a_basis_has_its_name(name: str) -> None:
    check_basis("identity")
    check_basis("dct12")
    with pytest.raises(ConfigError, match="basis must be identity, or dctK"):
        check_basis(name)
