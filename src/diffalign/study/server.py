"""Serves a study to browsers.

    GET  /            instructions and consent; redirects a known voter to /vote
    GET  /?code=CODE  the same with an invitation code, if the study wants one
    POST /start       registers a voter
    GET  /vote        redirects to the first unanswered question, or to /end
    GET  /vote/N      question N, from 1; answered ones may be answered again
    POST /vote/N      records the answer, and redirects as /vote does
    GET  /end         thanks
    GET  /picture/ID  a picture of one of the voter's questions
    GET  /page.css, /keys.js

An ID is a keyed hash of voter, question and side. It does not reveal the picture's source, and the same
picture has different IDs in different questions and for different voters. Voters are known by a cookie.
"""

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from pathlib import Path
from sqlite3 import OperationalError
from typing import Any
from urllib.parse import parse_qsl

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from diffalign.rewards.serving import Server, read_body
from diffalign.study import StudyError
from diffalign.study.questions import Shown, pool
from diffalign.study.votes import ALLOWED, Answer, Votes

MAX_BYTES = 4096  # of a form
MAX_FIELDS = 8  # of a form
_COOKIE_SECONDS = 365 * 24 * 3600  # for which a voter is remembered: a year
_FOLDER = Path(__file__).parent
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src "
    "'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TEMPLATES = Environment(
    loader=FileSystemLoader(_FOLDER / "templates"),
    autoescape=True,
    trim_blocks=True,
    undefined=StrictUndefined,
)


def render(name: str, **values: Any) -> str:
    """The page `name` of the templates."""
    return _TEMPLATES.get_template(f"{name}.html").render(values)


class StudyServer(Server):
    """Serves the voters of a study.

    Arguments:
        votes: the study; its caller closes it.
        host, port: the address to listen at; port 0 takes a free one.

    Attributes:
        invitation: the address for voters, with the code if they need one.

    Raises:
        OSError: if it cannot listen there.
    """

    def __init__(self, votes: Votes, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.votes, self.design = votes, votes.design
        self.cookie = f"voter-{votes.id}"  # differs between studies, as ports of a host share their cookies
        css, keys = ((_FOLDER / name).read_bytes() for name in ("page.css", "keys.js"))
        routes = [
            Route("/", self._start),
            Route("/start", _with_form(self._register), methods=["POST"]),
            Route("/vote", self._next),
            Route("/vote/{number}", self._question),
            Route("/vote/{number}", _with_form(self._cast), methods=["POST"]),
            Route("/end", self._end),
            Route("/picture/{name}", self._picture),
            Route("/page.css", Response(css, media_type="text/css"), methods=["GET"]),
            Route("/keys.js", Response(keys, media_type="text/javascript"), methods=["GET"]),
        ]
        trouble = {HTTPException: _refuse, OperationalError: _excuse}
        super().__init__(Starlette(routes=routes, exception_handlers=trouble), host, port, _HEADERS)
        self.invitation = f"{self.url}/?code={votes.invitation}" if self.design.invite else self.url

    def _start(self, request: Request) -> Response:
        if self._voter(request):
            return _redirect("/vote")
        return self._instructions(request.query_params.get("code", ""))

    def _instructions(self, code: str, warning: str = "") -> Response:
        questions = self.design.questions + self.design.checks
        asked = {"code": code} if self.design.invite else {}
        text = render("start", mode=self.design.mode, questions=questions, warning=warning, **asked)
        return HTMLResponse(text, 400 if warning else 200)

    def _register(self, request: Request, form: dict[str, str]) -> Response:
        if self._voter(request):
            return _redirect("/vote")
        code = form.get("code", "")
        if form.get("consent") != "yes":
            return self._instructions(code, "Please tick the box to take part.")
        if self.design.invite and not hmac.compare_digest(code.encode(), self.votes.invitation.encode()):
            return self._instructions("", "Please give the code of your invitation.")
        reply = _redirect("/vote")
        cookie = f"{self.cookie}={self.votes.register()}; Path=/; Max-Age={_COOKIE_SECONDS}"
        reply.headers["Set-Cookie"] = f"{cookie}; HttpOnly; SameSite=Strict"
        return reply

    def _next(self, request: Request) -> Response:
        _, dealt, first_open = self._progress(request)
        return _redirect(f"/vote/{first_open}" if first_open <= len(dealt) else "/end")

    def _end(self, request: Request) -> Response:
        _, dealt, first_open = self._progress(request)
        return (
            _redirect("/vote") if first_open <= len(dealt) else HTMLResponse(render("end", total=len(dealt)))
        )

    def _question(self, request: Request, warning: str = "") -> Response:
        voter, shown, index, total = self._asked(request)
        text = render(
            "question",
            mode=self.design.mode,
            prompt=self.design.prompts[pool(self.design)[shown.number].prompt],
            pictures=[
                self._name(voter, shown, side) for side in range(2 if self.design.mode == "pairs" else 1)
            ],
            values=ALLOWED[self.design.mode],
            answer=self.votes.answers(voter).get(shown.number),
            index=index,
            total=total,
            warning=warning,
        )
        return HTMLResponse(text, 400 if warning else 200)

    def _cast(self, request: Request, form: dict[str, str]) -> Response:
        voter, shown, *_ = self._asked(request)
        try:
            self.votes.cast(voter, shown, Answer(form.get("alignment", ""), form.get("quality", "")))
        except StudyError:
            return self._question(request, "Please answer both questions.")
        return self._next(request)

    def _picture(self, request: Request) -> Response:
        voter = self._voter(request)
        for shown in self.votes.dealt(voter) if voter else ():
            for side in (0, 1):
                if self._name(voter, shown, side) == request.path_params["name"]:
                    question = pool(self.design)[shown.number]
                    other = question.first if question.second is None else question.second
                    source = other if side != shown.swapped else question.first
                    png = self.votes.png(question.prompt, question.position, source)
                    return Response(png, media_type="image/png")
        raise HTTPException(404)

    def _name(self, voter: str, shown: Shown, side: int) -> str:
        text = f"{voter}/{shown.number}/{side}".encode()
        return hashlib.blake2b(text, key=bytes.fromhex(self.votes.secret), digest_size=16).hexdigest()

    def _voter(self, request: Request) -> str:
        """The id of the voter who asks; empty for somebody who is none."""
        voter = request.cookies.get(self.cookie, "")
        return voter if self.votes.number(voter) is not None else ""

    def _progress(self, request: Request) -> tuple[str, tuple[Shown, ...], int]:
        """A voter's id and questions, and the index, from 1, of the first unanswered, or one after the last.

        Raises:
            HTTPException: for somebody who is no voter, who is sent to the start.
        """
        if not (voter := self._voter(request)):
            raise HTTPException(303, headers={"Location": "/"})
        dealt, answers = self.votes.dealt(voter), self.votes.answers(voter)
        unanswered = (i for i, shown in enumerate(dealt, 1) if shown.number not in answers)
        return voter, dealt, next(unanswered, len(dealt) + 1)

    def _asked(self, request: Request) -> tuple[str, Shown, int, int]:
        """The voter's id, the question at an address, its index from 1, and how many there are.

        Raises:
            HTTPException: if there is no such question, or it is not yet the voter's turn to answer it.
        """
        voter, dealt, first_open = self._progress(request)
        numbers = {str(i): i for i in range(1, len(dealt) + 1)}
        if (index := numbers.get(request.path_params["number"])) is None:
            raise HTTPException(404)
        if index > first_open:
            raise HTTPException(303, headers={"Location": "/vote"})
        return voter, dealt[index - 1], index, len(dealt)


def _redirect(address: str) -> Response:
    return RedirectResponse(address, 303)


def _with_form(
    answer: Callable[[Request, dict[str, str]], Response],
) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that reads a form, and answers with it in a thread."""

    async def endpoint(request: Request) -> Response:
        body = await read_body(request, MAX_BYTES)
        try:
            fields = parse_qsl(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=MAX_FIELDS)
        except ValueError as error:  # also a UnicodeDecodeError
            raise HTTPException(400) from error
        return await run_in_threadpool(answer, request, dict(fields))

    return endpoint


def _refuse(request: Request, error: Any) -> Response:
    status = error.status_code
    if status == 405:  # an address of another method
        status = 404 if request.method in ("GET", "POST") else 501
    headers = {**(error.headers or {}), "Connection": "close"}  # as a form may be unread
    return HTMLResponse(render("nothing"), status, headers)


def _excuse(request: Request, error: Exception) -> Response:  # the disk is full, say
    return HTMLResponse(render("trouble"), 503)
