"""A TCP forwarder over a long way: what passes it arrives later, and no slower."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from typing import Self

_CHUNK = 256 << 10
_SOON = 0.001


class _Way:
    """One direction of a connection. Its sink never blocks: what it doesn't take at once waits here."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self._sink = sink
        self._left = bytearray()
        self._ended = False

    def read(self) -> bytes:
        """What there is; nothing at the end."""
        try:
            return self.source.recv(_CHUNK)
        except OSError:
            return b""

    def send(self, data: bytes) -> bool:
        """Sends what can be sent; False while something is left. No data means that nothing more comes."""
        self._left += data
        self._ended = self._ended or not data
        return self.flush()

    def flush(self) -> bool:
        try:
            while self._left:
                del self._left[: self._sink.send(self._left)]
            if self._ended:
                self._sink.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            return False
        except OSError:
            self._left.clear()
        return True


class FarLink:
    """Forwards a free loopback port to `target` (host:port), half of `round_trip` seconds later in each direction. Use
    as a context manager. Connections are accepted at once: it is requests that are far away. One thread does it all, so
    that hundreds of connections cost little."""

    def __init__(self, target: str, round_trip: float) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._way = round_trip / 2
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._open: set[socket.socket] = set()
        self._closing, self._closed = socket.socketpair()
        self._thread = threading.Thread(target=self._forward, daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.close()
        self._thread.join()
        for one in (self._listener, self._closed, *self._open):
            one.close()

    def _forward(self) -> None:
        under_way: deque[tuple[float, _Way, bytes]] = deque()
        slow: set[_Way] = set()
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._closed, selectors.EVENT_READ)
            while True:
                due = _SOON if slow else under_way[0][0] - time.monotonic() if under_way else None
                for key, _ in selector.select(due if due is None else max(0.0, due)):
                    if key.fileobj is self._closed:
                        return
                    if key.fileobj is self._listener:
                        self._accept(selector)
                        continue
                    data = key.data.read()
                    under_way.append((time.monotonic() + self._way, key.data, data))
                    if not data:
                        selector.unregister(key.data.source)
                while under_way and under_way[0][0] <= time.monotonic():
                    _, way, data = under_way.popleft()
                    if not way.send(data):
                        slow.add(way)
                slow = {way for way in slow if not way.flush()}

    def _accept(self, selector: selectors.BaseSelector) -> None:
        client, _ = self._listener.accept()
        self._open.add(client)
        with contextlib.suppress(OSError):
            server = socket.create_connection(self._target)
            self._open.add(server)
            for source, sink in ((client, server), (server, client)):
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                source.setblocking(False)
                selector.register(source, selectors.EVENT_READ, _Way(source, sink))
