"""The HTTP server that scores rewards and asks the questions of a study."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

IDLE_SECONDS = 60  # after which a silent connection ends


class Server(ThreadingHTTPServer):
    """Listens, and gives each connection a thread.

    Arguments:
        handler: answers the requests of a connection.
        host, port: the address to listen at; port 0 takes a free one.

    Raises:
        OSError: if it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], host: str, port: int) -> None:
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"cannot listen on {host}:{port} ({reason}); give another port or host") from error

    @property
    def url(self) -> str:
        """The address at which it listens."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Prints the error in a line, without the client's address; nothing if the client went away."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            print(f"a request failed: {error!r}", file=sys.stderr)
