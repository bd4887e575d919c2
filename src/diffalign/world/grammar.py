"""English for scenes: the captions of a scene, and the conditions that a prompt sets.

prompt     := things [relation things] [background]
things     := (a | an | one | two | three | four) [tint] subject
relation   := and | on the left of | on the right of | above | below
background := on the (grass | moon | street | snow)
"""

import re
from dataclasses import dataclass
from itertools import product

import numpy as np

from diffalign.settings.choices import unknown
from diffalign.world.scenes import (
    BACKGROUNDS,
    NATURAL_TINT,
    SUBJECTS,
    TINTS,
    Frequencies,
    Scene,
    Thing,
    relations_between,
)

COUNTS = ("one", "two", "three", "four")
PLURAL = {subject: f"{subject}s" for subject in SUBJECTS}
_SINGULAR = {plural: subject for subject, plural in PLURAL.items()}
_PHRASES = {"left": "on the left of", "right": "on the right of"}  # of relations that are no word
_RELATIONS = {_PHRASES.get(name, name): name for name in ("and", "left", "right", "above", "below")}
#: `things` and `prompt` of the grammar.
_GROUP = r"(?:(?:a|an|one|two|three|four) (?:\w+ )?\w+)"
_PROMPT = re.compile(
    rf"^(?P<first>{_GROUP})"
    rf"(?: (?P<relation>{'|'.join(_RELATIONS)}) (?P<second>{_GROUP}))?"
    rf"(?: on the (?P<background>{'|'.join(BACKGROUNDS)}))?$"
)


class PromptError(ValueError):
    """The prompt is not in the world's language."""


@dataclass(frozen=True)
class Group:
    """A number of things of one kind.

    Attributes:
        tint: the colour; None accepts any.
        count: how many there must be.
        natural: whether the things must have the natural colour of the subject; `tint` is then None.
    """

    subject: str
    tint: str | None
    count: int
    natural: bool = False

    def accepts(self, thing: Thing) -> bool:
        """Whether subject and colour of `thing` are right."""
        coloured = thing.tint == self.tint or (self.tint is None and not self.natural)
        return thing.subject == self.subject and coloured


@dataclass(frozen=True)
class Request:
    """The conditions of a prompt.

    Attributes:
        groups: one or two.
        relation: of the first group to the second: as in `_RELATIONS`, or None for a single group.
        background: one of `BACKGROUNDS`, or None for any.
    """

    groups: tuple[Group, ...]
    relation: str | None
    background: str | None

    def check(self, scene: Scene) -> list[bool]:
        """Whether each condition holds in `scene`, in this order.

        For each group: the subject occurs; it has the named colour (if any); its count is right.
        Then the relation (if any), the background (if any), and that there is nothing else.
        """
        held: list[bool] = []
        unclaimed = list(scene.things)
        for group in self.groups:
            same = [thing for thing in unclaimed if thing.subject == group.subject]
            accepted = [thing for thing in same if group.accepts(thing)]
            held.append(bool(same))
            if group.tint or group.natural:
                held.append(bool(accepted))
            held.append(len(accepted) == group.count)
            unclaimed = [thing for thing in unclaimed if thing not in (accepted or same)]
        if self.relation not in (None, "and"):
            pairs = product(*([it for it in scene.things if group.accepts(it)] for group in self.groups))
            relations = [relations_between(a, b) for a, b in pairs]
            held.append(bool(relations) and all(self.relation in between for between in relations))
        if self.background is not None:
            held.append(scene.background == self.background)
        held.append(bool(scene.things) and not unclaimed)
        return held


def _phrase(subject: str, tint: str | None, count: int) -> str:
    """Such as "three green dogs"."""
    noun = subject if count == 1 else PLURAL[subject]
    words = f"{tint} {noun}" if tint else noun
    article = "an" if words[0] in "aeiou" else "a"
    return f"{COUNTS[count - 1] if count > 1 else article} {words}"


def caption(scene: Scene, rng: np.random.Generator, frequencies: Frequencies) -> str:
    """A true description of `scene`; `rng` draws among its wordings."""

    def colour(thing: Thing) -> str | None:
        natural = NATURAL_TINT.get(thing.subject)
        if thing.tint is None and natural and frequencies.named_colour:
            return natural if rng.random() < frequencies.named_colour else None
        return thing.tint

    first, last = scene.things[0], scene.things[-1]
    if first.subject == last.subject:
        text = _phrase(first.subject, colour(first), len(scene.things))
    else:
        if rng.random() < 0.5:
            first, last = last, first
        relations = sorted(relations_between(first, last))
        relation = relations[rng.integers(len(relations))] if relations and rng.random() < 0.5 else "and"
        phrases = (_phrase(thing.subject, colour(thing), 1) for thing in (first, last))
        text = f" {_PHRASES.get(relation, relation)} ".join(phrases)
    if scene.background != "plain" and rng.random() >= frequencies.silent_background:
        text += f" on the {scene.background}"
    return text


def _parse_group(text: str) -> Group:
    """The group of a phrase that `_GROUP` matches."""
    number, *adjectives, noun = text.split()
    count = 1 if number in ("a", "an") else COUNTS.index(number) + 1
    subject = noun if noun in SUBJECTS else _SINGULAR.get(noun)
    if subject is None:
        raise PromptError(unknown("thing", noun, SUBJECTS))
    tint = adjectives[0] if adjectives else None
    if tint and tint not in TINTS:
        raise PromptError(unknown("colour", tint, TINTS))
    natural = tint is not None and NATURAL_TINT.get(subject) == tint
    return Group(subject, None if natural else tint, count, natural)


def parse(prompt: str) -> Request:
    """The conditions that `prompt` sets.

    Raises:
        PromptError: if the prompt is not in the world's language; the message has examples of what is.
    """
    text = " ".join(prompt.lower().replace(".", " ").replace(",", " ").split())
    match = _PROMPT.match(text)
    if match is None:
        raise PromptError(
            f"the embedded world cannot read {prompt!r}; it reads prompts such as 'a green dog on the moon', "
            "'four pandas', 'a dog and a cat', 'a red apple on the left of a car'"
        )
    groups = tuple(_parse_group(text) for text in match.group("first", "second") if text)
    if len({group.subject for group in groups}) < len(groups):
        raise PromptError(f"{prompt!r} names one subject twice; use a count or two different subjects")
    return Request(groups, _RELATIONS.get(match["relation"]), match["background"])
