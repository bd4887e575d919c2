"""A voter's way through his questions: what each address answers.

    GET  /            instructions and consent; a voter goes on to /vote
    POST /start       a new voter
    GET  /vote        on to the first question without an answer, or to /end
    GET  /vote/N      the N-th question, from 1; answered ones may be answered again
    POST /vote/N      the answer; then on
    GET  /end         thanks
    GET  /picture/ID  a picture of one of the voter's questions
    GET  /page.css, /keys.js

An ID is a keyed hash of voter, question and side. It tells nothing of where the picture comes from, and
the same picture has another one in each question and for each voter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diffalign.study import StudyError, page
from diffalign.study.questions import Shown, pool
from diffalign.study.votes import Answer, Votes

_FILES = {
    f"/{name}": (kind, (Path(__file__).parent / name).read_bytes())
    for name, kind in (("page.css", "text/css; charset=utf-8"), ("keys.js", "text/javascript; charset=utf-8"))
}
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Reply:
    """What is sent back."""

    status: int
    content: bytes = b""
    kind: str = _HTML
    headers: Mapping[str, str] = field(default_factory=dict)


def _html(text: str, status: int = 200) -> Reply:
    return Reply(status, text.encode())


def _to(place: str, **headers: str) -> Reply:
    return Reply(303, headers={"Location": place, **headers})


class Ballot:
    """Answers requests from a study. A voter is known by his id, that of a cookie."""

    def __init__(self, votes: Votes) -> None:
        self.votes, self.design = votes, votes.design
        self.cookie = f"voter-{votes.id}"  # a cookie counts for all ports of a host: each study has its own

    def get(self, path: str, voter: str | None) -> Reply:
        """Of a voter, or of somebody who is none yet."""
        if path in _FILES:
            kind, content = _FILES[path]
            return Reply(200, content, kind)
        known = voter is not None and self.votes.number(voter) is not None
        match path.split("/")[1:]:
            case [""]:
                return _to("/vote") if known else _html(page.start(self.design))
            case ["vote"] | ["vote", _] | ["end"] if not known:
                return _to("/")
            case ["vote"]:
                return self._next(str(voter))
            case ["vote", number]:
                return self._question(str(voter), number)
            case ["end"]:
                return self._end(str(voter))
            case ["picture", name] if known:
                return self._picture(str(voter), name)
        return self._nothing()

    def post(self, path: str, voter: str | None, fields: Mapping[str, str]) -> Reply:
        """Likewise, of a form's `fields`."""
        known = voter is not None and self.votes.number(voter) is not None
        match path.split("/")[1:]:
            case ["start"] if known:
                return _to("/vote")
            case ["start"]:
                if fields.get("consent") != "yes":
                    return _html(page.start(self.design, "Please tick the box to take part."), 400)
                cookie = f"{self.cookie}={self.votes.register()}; Path=/; Max-Age=31536000"
                return _to("/vote", **{"Set-Cookie": f"{cookie}; HttpOnly; SameSite=Strict"})
            case ["vote", _] if not known:
                return _to("/")
            case ["vote", number]:
                return self._cast(str(voter), number, fields)
        return self._nothing()

    def _nothing(self) -> Reply:
        return _html(page.nothing(), 404)

    def _first_open(self, voter: str) -> int:
        """The place of the first question without an answer, from 1; one after the last if there is none."""
        dealt, answers = self.votes.dealt(voter), self.votes.answers(voter)
        return next((i for i, it in enumerate(dealt, 1) if it.number not in answers), len(dealt) + 1)

    def _next(self, voter: str) -> Reply:
        place = self._first_open(voter)
        return _to("/end" if place > len(self.votes.dealt(voter)) else f"/vote/{place}")

    def _end(self, voter: str) -> Reply:
        total = len(self.votes.dealt(voter))
        return _html(page.end(total)) if self._first_open(voter) > total else _to("/vote")

    def _question(self, voter: str, number: str, warning: str = "") -> Reply:
        dealt = self.votes.dealt(voter)
        if not (place := _place(number, len(dealt))):
            return self._nothing()
        if place > self._first_open(voter):
            return _to("/vote")
        shown = dealt[place - 1]
        said = self.votes.answers(voter).get(shown.number)
        prompt = self.design.prompts[pool(self.design)[shown.number].prompt]
        sides = range(1 if self.design.mode == "rating" else 2)
        names = [self._name(voter, shown, side) for side in sides]
        text = page.question(self.design.mode, prompt, names, place, len(dealt), said, warning)
        return _html(text, 400 if warning else 200)

    def _cast(self, voter: str, number: str, fields: Mapping[str, str]) -> Reply:
        dealt = self.votes.dealt(voter)
        if not (place := _place(number, len(dealt))):
            return self._nothing()
        if place > self._first_open(voter):
            return _to("/vote")
        answer = Answer(fields.get("alignment", ""), fields.get("quality", ""))
        try:
            self.votes.cast(voter, dealt[place - 1], answer)
        except StudyError:
            return self._question(voter, number, "Please answer both questions.")
        return self._next(voter)

    def _name(self, voter: str, shown: Shown, side: int) -> str:
        text = f"{voter}/{shown.number}/{side}".encode()
        return hashlib.blake2b(text, key=bytes.fromhex(self.votes.secret), digest_size=16).hexdigest()

    def _picture(self, voter: str, name: str) -> Reply:
        for shown in self.votes.dealt(voter):
            for side in (0, 1):
                if self._name(voter, shown, side) == name:
                    question = pool(self.design)[shown.number]
                    other = question.first if question.second is None else question.second
                    source = other if side != shown.swapped else question.first
                    png = self.votes.png(question.prompt, question.position, source)
                    return Reply(200, png, "image/png")
        return self._nothing()


def _place(number: str, total: int) -> int:
    """A place among `total` as an address says it; 0 if it is none."""
    place = int(number) if number.isascii() and number.isdecimal() and len(number) < 7 else 0
    return place if place <= total else 0
