"""What to say of a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def unknown(kind: str, given: str, known: Iterable[str]) -> str:
    """The message for an unknown name: what was given, what is allowed, and which of it is near."""
    names = list(known)
    near = difflib.get_close_matches(given, names, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"unknown {kind} {given!r}; choose one of: {', '.join(names)}{hint}"
