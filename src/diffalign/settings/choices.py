"""What messages say of names and texts: a name that is not among the known ones, and a long prompt."""

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
    return f"unknown {kind} {shortened(given)!r}; choose one of: {choices}{f' ({hint})' if hint else ''}"


def shortened(text: str, longest: int = 120) -> str:
    """`text` as one line of at most so many characters; what is left out, at a word if it can be, is an …

    A prompt of thousands of words still makes a title, a message and a cell of a table.
    """
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    cut = line[: longest - 1]
    word = cut.rpartition(" ")[0]
    return (word if len(word) > longest // 2 else cut) + "…"
