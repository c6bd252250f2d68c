"""A TCP forwarder in front of a Prefect server: counts requests, and can be cut as a network is."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections import Counter
from typing import Self

_CHUNK = 65536
_REQUEST = re.compile(rb"^([A-Z]+) (/api/\S*) HTTP/1\.1\r$", re.MULTILINE)


class ApiLink:
    """Forwards a free loopback port to that of the server at `api` (http://HOST:PORT/api). Use as a context manager.
    While it is cut nothing passes, and what was sent arrives later, as TCP does it."""

    def __init__(self, api: str) -> None:
        self._target = ("127.0.0.1", int(api.rpartition(":")[2].partition("/")[0]))
        self._requests: Counter[str] = Counter()
        self._whole = threading.Event()
        self._whole.set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}/api"

    @property
    def requests(self) -> Counter[str]:
        """By METHOD PATH; a websocket counts as the one request that opens it."""
        return self._requests.copy()

    def cut(self) -> None:
        self._whole.clear()

    def restore(self) -> None:
        self._whole.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.restore()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(self._target)
        except OSError:
            client.close()
            return
        back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
        back.start()
        self._pass(client, server, count=True)
        back.join()
        client.close()
        server.close()

    def _pass(self, source: socket.socket, sink: socket.socket, *, count: bool = False) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                if count:
                    self._requests.update(
                        f"{method.decode()} {path.decode()}" for method, path in _REQUEST.findall(data)
                    )
                self._whole.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
