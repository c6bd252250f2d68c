"""A TCP forwarder whose speed a test sets: what passes it can be slowed down in the middle of a blob, and let go."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

_CHUNK = 4096


class SlowLink:
    """Forwards a free loopback port to `target` (host:port). `bytes_per_second` holds for all connections together and
    may be changed at any time; 0 is unlimited. It slows what comes back, or with `uploads` what is sent. Use as a
    context manager."""

    def __init__(self, target: str, bytes_per_second: int = 0, *, uploads: bool = False) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.bytes_per_second = bytes_per_second
        self._uploads = uploads
        self.passed = 0
        """Bytes that came back from the target so far."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._due = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with self._lock:
            self._closed = True
            for each in (self._listener, *self._open):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            with self._lock:
                self._open.update((client, server))
            threading.Thread(target=self._pump, args=(client, server, self._uploads), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, not self._uploads), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(max(_CHUNK, self.bytes_per_second // 200)):
                if slow:
                    self._brake(len(data))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _brake(self, count: int) -> None:
        """Waits for this chunk's turn among all connections, looking at the speed often enough to be let go at once."""
        with self._lock:
            self.passed += count
            speed = self.bytes_per_second
            self._due = max(self._due, time.monotonic()) + (count / speed if speed else 0)
            due = self._due
        while self.bytes_per_second and not self._closed and time.monotonic() < due:
            time.sleep(0.005)
