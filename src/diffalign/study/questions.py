"""Which pictures a voter sees, in which order and on which side: a pure function of design and voter.

All questions of a study are in one circle, and voter v is dealt the arc from vN to vN + N. So after any
number of voters, how often two questions were dealt differs by one at most. With m contests and n prompts,
question i of a round along the circle has

    contest i mod m,  prompt (i + ⌊i / lcm(m, n)⌋) mod n

so that how often an arc has two pairs of sources, or two prompts, differs by one or two at most. Ratings go
source by source within a prompt instead, so that a voter who rates one source rates the others too.

The arc is then shuffled, and for each pair of sources the sides are swapped in half of the questions; both
depend on the design's seed and the voter's id alone.
"""

import math
import random
from dataclasses import dataclass
from functools import cache
from itertools import combinations
from typing import Literal

from diffalign.settings.choices import unknown
from diffalign.settings.fields import NotNegative, Positive, Settings
from diffalign.study import StudyError

Mode = Literal["pairs", "rating"]
LEAST, GREATEST = 1, 5  # ratings
USUAL = 40  # questions for a voter, if there are as many: some ten minutes


@dataclass(frozen=True)
class Design(Settings):
    """What a study asks. Studies with equal designs ask the same questions.

    Attributes:
        mode: pairs of pictures, or ratings of single pictures.
        sources: names of what is compared.
        prompts: texts.
        counts: by prompt, the number of pictures of each source.
        questions: dealt to each voter; 0 means all, but at most `USUAL`.
        seed: of order and sides.
        anchor: the source that all others are paired with; None pairs all with all.
        checks: further questions to each voter, in which both pictures are the same.
        invite: whether a voter needs the study's invitation code.

    Raises:
        ConfigError: if a value has another type, or is out of its bounds.
        StudyError: if the design is contradictory, or wants more questions than there are.
    """

    mode: Mode
    sources: tuple[str, ...]
    prompts: tuple[str, ...]
    counts: tuple[Positive, ...]
    questions: NotNegative = 0
    seed: int = 0
    anchor: str | None = None
    checks: NotNegative = 0
    invite: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.prompts or len(self.prompts) != len(self.counts):
            raise StudyError(f"{len(self.prompts)} prompts need a count of pictures each, not {self.counts}")
        if self.mode == "rating" and (self.anchor is not None or self.checks):
            raise StudyError("an anchor and checks are of pairs; leave them out of ratings")
        if self.anchor is not None and self.anchor not in self.sources:
            raise StudyError(unknown("anchor", self.anchor, self.sources))
        pictures = sum(self.counts)
        available = pictures * len(contests(self))
        if not 0 <= self.questions <= available:
            raise StudyError(
                f"there are {available} questions to ask, not {self.questions}; lower --questions"
            )
        if not 0 <= self.checks <= pictures * len(self.sources):
            raise StudyError(f"{self.checks} checks need as many pictures; lower --checks")
        object.__setattr__(self, "questions", self.questions or min(available, USUAL))


@dataclass(frozen=True)
class Question:
    """Picture `position` of prompt `prompt`, of source `first` against `second` or alone; all are numbers."""

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
    """The pairs of sources that are compared; for ratings single sources, with None."""
    everyone = range(len(design.sources))
    if design.mode == "rating":
        return [(source, None) for source in everyone]
    if design.anchor is None:
        return list(combinations(everyone, 2))
    anchor = design.sources.index(design.anchor)
    return [(source, anchor) for source in everyone if source != anchor]


@cache
def pool(design: Design) -> tuple[Question, ...]:
    """All questions around the circle, then all checks; a question's number is its index here."""
    rng = random.Random(f"{design.seed}")
    pairs, prompts = contests(design), list(range(len(design.prompts)))
    rng.shuffle(pairs)
    rng.shuffle(prompts)
    positions = [rng.sample(range(count), count) for count in design.counts]
    m, n = len(pairs), len(prompts)
    if design.mode == "rating":
        cells = [(i % m, i // m) for i in range(m * n)]
    else:
        cells = [(i % m, (i + i // math.lcm(m, n)) % n) for i in range(m * n)]
    questions = [
        Question(prompts[b], positions[prompts[b]][turn], *pairs[a])
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
    return (*questions, *checks)


def deal(design: Design, number: int, voter: str) -> tuple[Shown, ...]:
    """The questions of voter `number`, from 0, with the id `voter`, in the order in which they are shown."""
    everything, rng = pool(design), random.Random(f"{design.seed}/{voter}")
    checks = sum(design.counts) * len(design.sources)
    questions = len(everything) - checks
    dealt = [(number * design.questions + i) % questions for i in range(design.questions)]
    dealt += [questions + (number * design.checks + i) % checks for i in range(design.checks)]
    rng.shuffle(dealt)
    swapped = _swapped(dealt, everything, rng)
    return tuple(Shown(question, swapped.get(question, False)) for question in dealt)


def _swapped(dealt: list[int], everything: tuple[Question, ...], rng: random.Random) -> dict[int, bool]:
    """Question → whether sides are swapped: true in half of each pair's questions, rounded at random."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for number in dealt:
        question = everything[number]
        if question.second is not None:
            pairs.setdefault((question.first, question.second), []).append(number)
    sides: dict[int, bool] = {}
    for questions in pairs.values():
        coin = rng.randrange(2)
        swapped = [(i + coin) % 2 == 1 for i in range(len(questions))]
        rng.shuffle(swapped)
        sides |= zip(questions, swapped, strict=True)
    return sides
