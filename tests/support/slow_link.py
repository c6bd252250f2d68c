"""A TCP forwarder whose speed a test sets: what passes it can be slowed down in the middle of a blob, and let go."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Self

_CHUNK = 4096


class SlowLink:
    """Forwards a free loopback port to `target` (host:port). `bytes_per_second` holds for all connections together, or
    with `each_process` for those of each process that connects, and may be changed at any time; 0 is unlimited. It
    slows what comes back, or with `uploads` what is sent. Use as a context manager."""

    def __init__(
        self,
        target: str,
        bytes_per_second: int = 0,
        *,
        uploads: bool = False,
        each_process: bool = False,
        holds_after: int = 0,
    ) -> None:
        """Of `holds_after` bytes no more pass, until that is 0."""
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
        self._due: dict[int, float] = {}
        self._each_process = each_process
        self.holds_after = holds_after
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
            line = process_of(client) if self._each_process else 0
            threading.Thread(target=self._pump, args=(client, server, line, self._uploads), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, line, not self._uploads), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, line: int, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(max(_CHUNK, self.bytes_per_second // 200)):
                if slow:
                    self._brake(line, len(data))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
        with self._lock:
            self._open.discard(source)
        source.close()

    def _brake(self, line: int, count: int) -> None:
        """Waits for this chunk's turn among the connections of its line, looking at the speed often enough to be let go
        at once."""
        with self._lock:
            self.passed += count
            speed = self.bytes_per_second
            due = max(self._due.get(line, 0.0), time.monotonic()) + (count / speed if speed else 0)
            self._due[line] = due
        while not self._closed and (
            0 < self.holds_after < self.passed or (self.bytes_per_second and time.monotonic() < due)
        ):
            time.sleep(0.005)


def process_of(connection: socket.socket) -> int:
    """Returns the process at the other end of a loopback connection, 0 when it is gone: Linux lists the inode of each
    socket in /proc/net/tcp, and every process its sockets by inode."""
    port = f":{connection.getpeername()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1].endswith(port):
            for entry in Path("/proc").glob("[0-9]*/fd/*"):
                with contextlib.suppress(OSError):
                    if os.readlink(entry) == f"socket:[{fields[9]}]":
                        return int(entry.parts[2])
    return 0
