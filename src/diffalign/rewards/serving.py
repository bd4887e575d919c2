"""What a reward and a study are served with: a Starlette app under uvicorn, and limits on its clients."""

import asyncio
import socket
import sys
from threading import Lock

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS = 512  # at once; another one ends that which has no request for longest, or is answered 503
IDLE_SECONDS = 20  # until a request begins, and again until its head is there
BODY_SECONDS = 120  # until a request's body is there
READ_SECONDS = 60  # after which a client that reads nothing of a reply is gone
_END_SECONDS = 1  # for requests that are being answered when the server ends


class Server:
    """Serves an app, and listens from its construction on.

    Arguments:
        app: that answers.
        host, port: the address to listen at; port 0 takes a free one.
        headers: of every reply.

    Raises:
        OSError: if it cannot listen there.
    """

    def __init__(self, app: Starlette, host: str, port: int, headers: dict[str, str] | None = None) -> None:
        app.router.redirect_slashes = False
        app.add_exception_handler(Exception, _failed)
        config = uvicorn.Config(
            app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,  # nobody needs to know who votes when
            proxy_headers=False,
            server_header=False,
            headers=list((headers or {}).items()),
            limit_concurrency=MAX_CONNECTIONS + 1,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=_END_SECONDS,
        )
        self._uvicorn, self._socket, self._closing = uvicorn.Server(config), socket.socket(), Lock()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
            self._socket.listen(config.backlog)
        except OSError as error:
            self._socket.close()
            reason = error.strerror or error
            raise OSError(f"cannot listen on {host}:{port} ({reason}); give another port or host") from error
        self.address: tuple[str, int] = self._socket.getsockname()
        self.url = "http://{}:{}".format(*self.address)

    def serve_forever(self) -> None:
        """Answers requests until `close` is called in another thread, or Ctrl-C raises KeyboardInterrupt."""
        with self._closing:
            sockets = [] if self._uvicorn.should_exit else [self._socket.dup()]
        self._uvicorn.run(sockets)

    def close(self) -> None:
        """Stops listening, and ends `serve_forever`."""
        with self._closing:
            self._uvicorn.should_exit = True
            self._socket.close()


class _Protocol(H11Protocol):
    """Ends connections that are late, however many bytes drip in, and the idlest where there are too many.

    uvicorn ends those that are silent after a reply.
    """

    late: asyncio.TimerHandle | None = None
    stuck: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.since = self.loop.time()
        idle = [it for it in self.connections if isinstance(it, _Protocol) and it.is_idle]
        if idle and len(self.connections) >= MAX_CONNECTIONS:
            idlest = min(idle, key=lambda it: it.since)
            self.connections.discard(idlest)
            idlest.transport.abort()
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.stuck = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _stop(self.stuck)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        _stop(self.late)
        _stop(self.stuck)

    def _watch(self) -> None:
        """Starts the clock of a request's head, unless it runs; stops it once the head is there."""
        if not self.is_idle:
            _stop(self.late)
            self.late = None
        elif self.late is None:
            self.late = self.loop.call_later(IDLE_SECONDS, self.transport.abort)


def _stop(clock: asyncio.TimerHandle | None) -> None:
    if clock is not None:
        clock.cancel()


def _failed(request: Request, error: Exception) -> Response:
    """Prints the error in a line, without the client's address."""
    print(f"a request failed: {error!r}", file=sys.stderr)
    return PlainTextResponse("Internal Server Error", 500, {"Connection": "close"})


def body_length(request: Request, max_bytes: int) -> int:
    """The length of a request's body, if it says one and that is at most `max_bytes`.

    Raises:
        HTTPException: if it does not.
    """
    length = request.headers.get("Content-Length")
    if length is None or "Transfer-Encoding" in request.headers:
        raise HTTPException(411, "the length of the request is missing")
    if int(length) > max_bytes:
        raise HTTPException(413, f"a request has at most {max_bytes} bytes, not {length}")
    return int(length)


async def read_body(request: Request, max_bytes: int) -> bytearray:
    """The body of a request, if it says its length, that is at most `max_bytes`, and it comes in time.

    Raises:
        HTTPException: if it does not, or the client goes away.
    """
    body_length(request, max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
    except ClientDisconnect as error:
        raise HTTPException(400, "the request ends too early") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the request was not there within {BODY_SECONDS} s") from error
    return body
