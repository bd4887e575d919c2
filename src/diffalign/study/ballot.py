"""The reply to each request of a voter.

    GET  /            instructions and consent; redirects a known voter to /vote
    POST /start       registers a voter
    GET  /vote        redirects to the first unanswered question, or to /end
    GET  /vote/N      question N, from 1; answered ones may be answered again
    POST /vote/N      records the answer, and redirects as /vote does
    GET  /end         thanks
    GET  /picture/ID  a picture of one of the voter's questions
    GET  /page.css, /keys.js

An ID is a keyed hash of voter, question and side. It does not reveal the picture's source, and the same
picture has different IDs in different questions and for different voters.
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
_COOKIE_SECONDS = 365 * 24 * 3600  # for which a voter is remembered: a year
_MOST_DIGITS = 6  # of a question's number in an address


@dataclass(frozen=True)
class Reply:
    """An HTTP response; `kind` is its content type."""

    status: int
    content: bytes = b""
    kind: str = _HTML
    headers: Mapping[str, str] = field(default_factory=dict)


def _html(text: str, status: int = 200) -> Reply:
    return Reply(status, text.encode())


def _redirect(address: str, **headers: str) -> Reply:
    return Reply(303, headers={"Location": address, **headers})


class Ballot:
    """Answers the requests of voters, who are identified by the id in a cookie."""

    def __init__(self, votes: Votes) -> None:
        self.votes, self.design = votes, votes.design
        self.cookie = (
            f"voter-{votes.id}"  # differs between studies, as the ports of a host share their cookies
        )

    def get(self, path: str, voter: str | None) -> Reply:
        """The reply to a GET request; `voter` is the id in the cookie, if there is one."""
        if path in _FILES:
            kind, content = _FILES[path]
            return Reply(200, content, kind)
        known = voter is not None and self.votes.number(voter) is not None
        match path.split("/")[1:]:
            case [""]:
                return _redirect("/vote") if known else _html(page.start(self.design))
            case ["vote"] | ["vote", _] | ["end"] if not known:
                return _redirect("/")
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
        """The reply to a POST request with a form's `fields`; `voter` as in `get`."""
        known = voter is not None and self.votes.number(voter) is not None
        match path.split("/")[1:]:
            case ["start"] if known:
                return _redirect("/vote")
            case ["start"]:
                if fields.get("consent") != "yes":
                    return _html(page.start(self.design, "Please tick the box to take part."), 400)
                cookie = f"{self.cookie}={self.votes.register()}; Path=/; Max-Age={_COOKIE_SECONDS}"
                return _redirect("/vote", **{"Set-Cookie": f"{cookie}; HttpOnly; SameSite=Strict"})
            case ["vote", _] if not known:
                return _redirect("/")
            case ["vote", number]:
                return self._cast(str(voter), number, fields)
        return self._nothing()

    def _nothing(self) -> Reply:
        return _html(page.nothing(), 404)

    def _first_open(self, voter: str) -> int:
        """The index, from 1, of the first unanswered question; one after the last if there is none."""
        dealt, answers = self.votes.dealt(voter), self.votes.answers(voter)
        unanswered = (i for i, shown in enumerate(dealt, 1) if shown.number not in answers)
        return next(unanswered, len(dealt) + 1)

    def _next(self, voter: str) -> Reply:
        index = self._first_open(voter)
        return _redirect("/end" if index > len(self.votes.dealt(voter)) else f"/vote/{index}")

    def _end(self, voter: str) -> Reply:
        total = len(self.votes.dealt(voter))
        return _html(page.end(total)) if self._first_open(voter) > total else _redirect("/vote")

    def _question(self, voter: str, number: str, warning: str = "") -> Reply:
        dealt = self.votes.dealt(voter)
        if not (index := _index(number, len(dealt))):
            return self._nothing()
        if index > self._first_open(voter):
            return _redirect("/vote")
        shown = dealt[index - 1]
        earlier = self.votes.answers(voter).get(shown.number)
        prompt = self.design.prompts[pool(self.design)[shown.number].prompt]
        sides = range(1 if self.design.mode == "rating" else 2)
        names = [self._name(voter, shown, side) for side in sides]
        text = page.question(self.design.mode, prompt, names, index, len(dealt), earlier, warning)
        return _html(text, 400 if warning else 200)

    def _cast(self, voter: str, number: str, fields: Mapping[str, str]) -> Reply:
        dealt = self.votes.dealt(voter)
        if not (index := _index(number, len(dealt))):
            return self._nothing()
        if index > self._first_open(voter):
            return _redirect("/vote")
        answer = Answer(fields.get("alignment", ""), fields.get("quality", ""))
        try:
            self.votes.cast(voter, dealt[index - 1], answer)
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


def _index(number: str, total: int) -> int:
    """The number in an address if it is one of 1 … `total`, else 0."""
    index = int(number) if number.isascii() and number.isdecimal() and len(number) <= _MOST_DIGITS else 0
    return index if index <= total else 0
