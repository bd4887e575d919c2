"""What a reward and a study are served with: a Starlette app under uvicorn, and limits on its clients."""

import asyncio
import socket
import sys
from threading import Lock

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

IDLE_SECONDS = 60  # after which a silent connection ends
MAX_CONNECTIONS = 512  # at once; the requests of others are answered 503
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
            limit_concurrency=MAX_CONNECTIONS,
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
    """Ends connections that are silent before a request or in the middle of one; uvicorn those after one."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # stops the clock
        self._wait()

    def _wait(self) -> None:
        if self.conn.their_state in (h11.IDLE, h11.SEND_BODY):
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(IDLE_SECONDS, self.transport.close)


def _failed(request: Request, error: Exception) -> Response:
    """Prints the error in a line, without the client's address."""
    print(f"a request failed: {error!r}", file=sys.stderr)
    return PlainTextResponse("Internal Server Error", 500, {"Connection": "close"})


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The body of a request, if it says its length and that is at most `max_bytes`.

    Raises:
        HTTPException: if it does not, or the client goes away.
    """
    length = request.headers.get("Content-Length")
    if length is None or "Transfer-Encoding" in request.headers:
        raise HTTPException(411, "the length of the request is missing")
    if int(length) > max_bytes:
        raise HTTPException(413, f"a request has at most {max_bytes} bytes, not {length}")
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise HTTPException(400, "the request ends too early") from error
