"""What the package's servers have in common."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """A thread a connection.

    Arguments:
        handler: answers a connection's requests.
        host, port: where it listens; port 0 takes a free one.

    Raises:
        OSError: if it cannot listen there.
    """

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler], host: str, port: int) -> None:
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            why = error.strerror or error
            raise OSError(f"cannot listen on {host}:{port} ({why}); give another port or host") from error

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A line without an address, and none where a client went away."""
        error = sys.exception()
        if not isinstance(error, ConnectionError):
            print(f"a request failed: {error!r}", file=sys.stderr)
