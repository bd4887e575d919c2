"""Serves a study over HTTP: requests and headers. The replies are those of `ballot`."""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler
from sqlite3 import OperationalError
from urllib.parse import parse_qsl

from diffalign.rewards.http import IDLE_SECONDS, Server
from diffalign.study import page
from diffalign.study.ballot import Ballot, Reply
from diffalign.study.votes import Votes

MAX_BYTES = 4096  # of a form
MAX_FIELDS = 8  # of a form
_TROUBLE = Reply(503, page.trouble().encode())  # the disk is full, say
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src "
    "'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class StudyServer(Server):
    """Serves the voters of a study, each connection in a thread.

    Arguments:
        votes: the study; its caller closes it.
        host, port: the address to listen at; port 0 takes a free one.

    Raises:
        OSError: if it cannot listen there.
    """

    def __init__(self, votes: Votes, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.ballot = Ballot(votes)
        super().__init__(_Handler, host, port)


class _Handler(BaseHTTPRequestHandler):
    server: StudyServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answers with a page, a file of it or a picture."""
        try:
            reply = self.server.ballot.get(self._path(), self._voter())
        except OperationalError:
            reply = _TROUBLE
        self._answer(reply)

    def do_POST(self) -> None:
        """Takes a form."""
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal()):
            return self._answer(Reply(411), end=True)
        if int(length) > MAX_BYTES:
            return self._answer(Reply(413), end=True)
        body = self.rfile.read(int(length))
        try:
            fields = dict(
                parse_qsl(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=MAX_FIELDS)
            )
        except ValueError:  # also a UnicodeDecodeError
            return self._answer(Reply(400, page.nothing().encode()))
        try:
            reply = self.server.ballot.post(self._path(), self._voter(), fields)
        except OperationalError:
            reply = _TROUBLE
        return self._answer(reply)

    def _path(self) -> str:
        return self.path.partition("?")[0]

    def _voter(self) -> str | None:
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.ballot.cookie)
        except CookieError:
            return None
        return None if cookie is None else cookie.value

    def _answer(self, reply: Reply, end: bool = False) -> None:
        self.send_response(reply.status)
        headers = {"Content-Type": reply.kind, **_HEADERS, **reply.headers}
        headers["Content-Length"] = str(len(reply.content))
        if end:  # the form is unread
            headers["Connection"] = "close"
            self.close_connection = True
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.content)

    def version_string(self) -> str:
        """The header Server, without versions."""
        return "diffalign"

    def log_message(self, format: str, *args: object) -> None:
        """Prints nothing, as nobody needs to know who votes when."""
