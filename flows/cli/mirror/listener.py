"""What `mirror watch` answers over HTTP: that it lives, whether its mirrors are on time, and the numbers of their runs.

Any client that reaches the port may ask, and none can hold it up: a connection has some seconds for its request and the
answer together, however slowly it drips, and each address only some of the connections.
"""

from __future__ import annotations

import errno
import io
import logging
import socket
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol, Self

from oci.errors import InvalidInput

_log = logging.getLogger("transship.watch")

SECONDS = 10.0
"""From the opening of a connection to the end of the answer."""
CONNECTIONS = 64
CONNECTIONS_OF_A_PEER = 16
"""Connections of one address: no stranger takes all CONNECTIONS."""
_REQUEST_LIMIT = 16 << 10
"""Bytes of a request that are read."""


class Watched(Protocol):
    def late(self) -> list[str]: ...
    def metrics(self) -> str: ...


class _Bounded(io.RawIOBase):
    """The bytes of a connection, as if it had ended after _REQUEST_LIMIT."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = _REQUEST_LIMIT

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._connection.recv_into(buffer, min(len(buffer), self._unread)) if self._unread else 0
        self._unread -= count
        return count


class _Handler(BaseHTTPRequestHandler):
    timeout = SECONDS
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Bounded(self.connection))

    def do_GET(self) -> None:
        watched = self.server.watched
        if self.path == "/healthz":
            self._answer(200, "ok\n")
        elif self.path == "/readyz":
            late = watched.late()
            self._answer(503 if late else 200, "".join(f"late: {name}\n" for name in late) or "ok\n")
        elif self.path == "/metrics":
            self._answer(200, watched.metrics(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._answer(404, "/healthz, /readyz or /metrics\n")

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        _log.debug(format, *args)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], watched: Watched) -> None:
        self.watched = watched
        self._lock = threading.Lock()
        self._open: dict[socket.socket, tuple[str, float]] = {}
        """Peer and end of the time of each connection."""
        super().__init__(address, _Handler)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Says whether there is room for one more connection; without, it is closed."""
        peer = str(client_address[0])
        with self._lock:
            of_peer = sum(peer == other for other, _ in self._open.values())
            if len(self._open) >= CONNECTIONS or of_peer >= CONNECTIONS_OF_A_PEER:
                return False
            self._open[request] = (peer, time.monotonic() + SECONDS)
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Ends connections whose time is over: their threads read an end, and close them."""
        now = time.monotonic()
        with self._lock:
            overdue = [connection for connection, (_, end) in self._open.items() if now > end]
        for connection in overdue:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A peer that went away in the middle is nothing that a log has to hold."""
        del request
        error = sys.exception()
        level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
        _log.log(level, "a request of %s wasn't answered: %r", client_address[0], error)


class Listener:
    """Answers requests while it is entered. Raises InvalidInput for an address that can't be listened on."""

    def __init__(self, watched: Watched, host: str, port: int) -> None:
        try:
            self._server = _Server((host, port), watched)
        except OSError as error:
            reason = error.strerror or str(error)
            flag = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
            raise InvalidInput(f"can't listen on {host} port {port}: {reason}", hint=f"give another {flag}") from error
        self.port = int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
