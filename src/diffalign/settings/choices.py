"""The message for a name that is not among the known ones, written once."""

import difflib
from collections.abc import Iterable


def unknown(
    kind: str, given: str, known: Iterable[str], *, alternative: str = "", hint: str | None = None
) -> str:
    """`unknown reward 'clipp'; choose one of: aesthetic, clip, image-reward (did you mean 'clip'?)`.

    Arguments:
        kind: what the name is of, such as "reward".
        given: the name that is not known.
        known: the names to choose from, in the order in which they are listed.
        alternative: what may be given besides, such as "or a file"; it follows the list.
        hint: for the parentheses, instead of the nearest of `known`; "" leaves them out.
    """
    names = list(known)
    if hint is None:
        nearest = difflib.get_close_matches(given, names, 1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else ""
    choices = ", ".join([*names, alternative] if alternative else names)
    return f"unknown {kind} {given!r}; choose one of: {choices}{f' ({hint})' if hint else ''}"
