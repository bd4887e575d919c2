"""Which pictures a voter sees, in which order and on which side: pure, of a design and the voter.

All questions of a study lie in one circle, and voter v is dealt the arc from vN to vN + N. So after any
number of voters each question was dealt equally often, but for one time. Along the circle (contests m,
prompts n) question i of a round is of

    contest i mod m,  prompt (i + ⌊i / lcm(m, n)⌋) mod n

so that an arc has each pair of sources, and each prompt, equally often but for one or two times. Ratings
go source by source within a prompt instead, so that a voter who rates one rates the others.

A voter's arc is then shuffled, and for each pair of sources one is on the left in half of the questions;
both follow from the design's seed and the voter's id.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal, get_args

from diffalign.settings.choices import unknown
from diffalign.study import StudyError

Mode = Literal["pairs", "rating"]
USUAL = 40  # questions a voter, if there are as many


@dataclass(frozen=True)
class Design:
    """What is asked. Two studies of the same design ask the same questions.

    Attributes:
        mode: pairs of pictures, or ratings of one at a time.
        sources: names of what is compared.
        prompts: texts.
        counts: of each prompt, how many pictures each source has.
        questions: that each voter is dealt; 0 becomes all, at most `USUAL`.
        seed: of order and sides.
        anchor: the source that all others are paired with; all with all if there is none.
        checks: further questions a voter in which both pictures are the same.

    Raises:
        StudyError: if the design asks for what is not there.
    """

    mode: Mode
    sources: tuple[str, ...]
    prompts: tuple[str, ...]
    counts: tuple[int, ...]
    questions: int = 0
    seed: int = 0
    anchor: str | None = None
    checks: int = 0

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise StudyError(unknown("mode", self.mode, get_args(Mode)))
        if self.mode == "rating" and (self.anchor is not None or self.checks):
            raise StudyError("an anchor and checks are of pairs; leave them out of ratings")
        if self.anchor is not None and self.anchor not in self.sources:
            raise StudyError(unknown("anchor", self.anchor, self.sources))
        pictures = sum(self.counts)
        there = pictures * len(contests(self))
        if not 0 <= self.questions <= there:
            raise StudyError(f"there are {there} questions to ask, not {self.questions}; lower --questions")
        if not 0 <= self.checks <= pictures * len(self.sources):
            raise StudyError(f"{self.checks} checks need as many pictures; lower --checks")
        object.__setattr__(self, "questions", self.questions or min(there, USUAL))


@dataclass(frozen=True)
class Question:
    """Picture `position` of prompt `prompt`, of source `first` against `second`, or alone; all by number."""

    prompt: int
    position: int
    first: int
    second: int | None = None

    @property
    def is_check(self) -> bool:
        """Whether both pictures are the same."""
        return self.first == self.second


@dataclass(frozen=True)
class Shown:
    """A question as a voter sees it: its number in `pool`, and whether `second` is on the left."""

    number: int
    swapped: bool


def contests(design: Design) -> list[tuple[int, int | None]]:
    """Which sources meet: pairs, or each alone for ratings."""
    everyone = range(len(design.sources))
    if design.mode == "rating":
        return [(source, None) for source in everyone]
    if design.anchor is None:
        return list(combinations(everyone, 2))
    anchor = design.sources.index(design.anchor)
    return [(source, anchor) for source in everyone if source != anchor]


@cache
def pool(design: Design) -> tuple[Question, ...]:
    """All questions around the circle, then all checks; a question's number is its place here."""
    rng = random.Random(f"{design.seed}")
    met, prompts = contests(design), list(range(len(design.prompts)))
    rng.shuffle(met)
    rng.shuffle(prompts)
    places = [rng.sample(range(count), count) for count in design.counts]
    m, n = len(met), len(prompts)
    if design.mode == "rating":
        cells = [(i % m, i // m) for i in range(m * n)]
    else:
        cells = [(i % m, (i + i // math.lcm(m, n)) % n) for i in range(m * n)]
    asked = [
        Question(prompts[b], places[prompts[b]][turn], *met[a])
        for turn in range(max(design.counts))
        for a, b in cells
        if turn < design.counts[prompts[b]]
    ]
    checks = [
        Question(prompt, position, source, source)
        for prompt, count in enumerate(design.counts)
        for position in range(count)
        for source in range(len(design.sources))
    ]
    rng.shuffle(checks)
    return (*asked, *checks)


def deal(design: Design, number: int, voter: str) -> tuple[Shown, ...]:
    """The questions of voter `number`, counted from 0, whose id is `voter`, in his order."""
    everything, rng = pool(design), random.Random(f"{design.seed}/{voter}")
    checks = sum(design.counts) * len(design.sources)
    asked = len(everything) - checks
    dealt = [(number * design.questions + i) % asked for i in range(design.questions)]
    dealt += [asked + (number * design.checks + i) % checks for i in range(design.checks)]
    rng.shuffle(dealt)
    sides = _sides(dealt, everything, rng)
    return tuple(Shown(each, sides.get(each, False)) for each in dealt)


def _sides(dealt: list[int], everything: tuple[Question, ...], rng: random.Random) -> dict[int, bool]:
    """Whether sides are swapped: in half of each pair's questions; which half gets an odd one is drawn."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for each in dealt:
        question = everything[each]
        if question.second is not None:
            pairs.setdefault((question.first, question.second), []).append(each)
    sides: dict[int, bool] = {}
    for questions in pairs.values():
        coin = rng.randrange(2)
        swapped = [(i + coin) % 2 == 1 for i in range(len(questions))]
        rng.shuffle(swapped)
        sides |= zip(questions, swapped, strict=True)
    return sides
