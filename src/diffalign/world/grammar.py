"""English for scenes: the captions of a scene, and the conditions that a prompt sets.

prompt     := things [relation things | motion] [background]
things     := (a | an | one | two | three | four) [tint] subject
relation   := and | on the left of | on the right of | above | below
motion     := (moving | walking) (from left to right | from right to left | up | down) | standing still
background := on the (grass | moon | street | snow)
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from diffalign.settings.choices import shortened, unknown
from diffalign.world.clips import motion_of
from diffalign.world.scenes import (
    ANIMALS,
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
#: Motion → how a prompt says it.
MOTION_PHRASES = {
    "right": "moving from left to right",
    "left": "moving from right to left",
    "up": "moving up",
    "down": "moving down",
    "still": "standing still",
}
_MOTIONS = {
    phrase.replace("moving", verb): name
    for name, phrase in MOTION_PHRASES.items()
    for verb in ("moving", "walking")
}
SEEN_IN = 0.75  # of a video's frames, in which a condition must hold at least
#: `things` and `prompt` of the grammar.
_GROUP = r"(?:(?:a|an|one|two|three|four) (?:\w+ )?\w+)"
_PROMPT = re.compile(
    rf"^(?P<first>{_GROUP})"
    rf"(?: (?P<relation>{'|'.join(_RELATIONS)}) (?P<second>{_GROUP})| (?P<motion>{'|'.join(_MOTIONS)}))?"
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
        relation: of the first group to the second: and, left, right, above or below; None for a single group.
        background: one of `BACKGROUNDS`, or None for any.
        motion: of the only thing of a video: right, left, up, down or still; None for any.
    """

    groups: tuple[Group, ...]
    relation: str | None
    background: str | None
    motion: str | None = None

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

    def check_video(self, scenes: Sequence[Scene]) -> list[bool]:
        """Whether each condition of `check` holds in most scenes of a video, and then the motion (if any)."""
        checked = [self.check(scene) for scene in scenes]
        held = [sum(frames) >= SEEN_IN * len(scenes) for frames in zip(*checked, strict=True)]
        if self.motion is not None:
            subject = self.groups[0].subject
            seen = [[thing for thing in scene.things if thing.subject == subject] for scene in scenes]
            places = [(i, *(things[0].x, things[0].y)) for i, things in enumerate(seen) if len(things) == 1]
            held.append(motion_of(places, len(scenes)) == self.motion)
        return held


def _phrase(subject: str, tint: str | None, count: int) -> str:
    """Such as "three green dogs"."""
    noun = subject if count == 1 else PLURAL[subject]
    words = f"{tint} {noun}" if tint else noun
    article = "an" if words[0] in "aeiou" else "a"
    return f"{COUNTS[count - 1] if count > 1 else article} {words}"


def caption(
    scene: Scene, rng: np.random.Generator, frequencies: Frequencies, motion: str | None = None
) -> str:
    """A true description of `scene`, whose only thing may have a `motion`; `rng` draws among its wordings."""

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
    if motion is not None:
        walks = first.subject in ANIMALS and rng.random() < 0.5
        phrase = MOTION_PHRASES[motion]
        text += f" {phrase.replace('moving', 'walking') if walks else phrase}"
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


def parse(prompt: str, video: bool = False) -> Request:
    """The conditions that `prompt` sets, for a picture or a `video`.

    Raises:
        PromptError: if the prompt is not in the world's language; the message has examples of what is. A
            prompt that names a motion is one for a video of one thing.
    """
    shown = repr(shortened(prompt))
    text = " ".join(prompt.lower().replace(".", " ").replace(",", " ").split())
    match = _PROMPT.match(text)
    if match is None:
        moving = ", 'a dog moving up', 'a cat walking from left to right'" if video else ""
        raise PromptError(
            f"the embedded world cannot read {shown}; it reads prompts such as 'a green dog on the moon', "
            f"'four pandas', 'a dog and a cat', 'a red apple on the left of a car'{moving}"
        )
    groups = tuple(_parse_group(text) for text in match.group("first", "second") if text)
    if len({group.subject for group in groups}) < len(groups):
        raise PromptError(f"{shown} names one subject twice; use a count or two different subjects")
    motion = _MOTIONS.get(match["motion"])
    if motion is not None and not video:
        raise PromptError(f"{shown} names a motion, which no picture shows; take the model world-video")
    if motion is not None and groups[0].count > 1:
        raise PromptError(f"{shown} names a motion of several things; the embedded world moves one")
    return Request(groups, _RELATIONS.get(match["relation"]), match["background"], motion)
