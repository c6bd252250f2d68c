"""A TCP forwarder over a long way: what passes it arrives later, and no slower."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from typing import Self

_CHUNK = 65536


class FarLink:
    """Forwards a free loopback port to `target` (host:port), half of `round_trip` seconds later in each direction. Use
    as a context manager. Connections are accepted at once: it is requests that are far away."""

    def __init__(self, target: str, round_trip: float) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._way = round_trip / 2
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            ends = [threading.Thread(target=self._pass, args=pair) for pair in ((client, server), (server, client))]
            threading.Thread(target=self._attend, args=(ends, client, server), daemon=True).start()

    def _attend(self, ends: list[threading.Thread], *sockets: socket.socket) -> None:
        for end in ends:
            end.daemon = True
            end.start()
        for end in ends:
            end.join()
        for one in sockets:
            one.close()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        """Reads at once and hands on when the time has come; nothing at the end stands for the end."""
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(source, under_way), daemon=True).start()
        with contextlib.suppress(OSError):
            while True:
                due, data = under_way.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    break
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def _read(self, source: socket.socket, under_way: queue.SimpleQueue[tuple[float, bytes]]) -> None:
        data = b"-"
        while data:
            try:
                data = source.recv(_CHUNK)
            except OSError:
                data = b""
            under_way.put((time.monotonic() + self._way, data))
