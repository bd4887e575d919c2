"""What the settings of all learners have in common. No torch: the command line's `--help` reads them."""

from __future__ import annotations

import re


class ConfigError(ValueError):
    """A setting is out of its range; the message says what is allowed."""


def check_basis(name: str) -> None:
    """Checks the name of a basis.

    Raises:
        ConfigError: if there is no such basis.
    """
    if not re.fullmatch(r"identity|dct[1-9]\d*", name):
        raise ConfigError(f"basis must be identity, or dctK for the K×K lowest frequencies, not {name!r}")
