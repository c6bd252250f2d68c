"""The connections of one registry: a pool whose sockets can be cut when a run is cancelled.

A thread that waits for bytes can't look at a token; shutting its socket down wakes it.
"""

from __future__ import annotations

import socket
import ssl
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

import httpcore
import httpx

from oci.cancel import CancelToken

_FOREIGN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError)
FOREIGN_MAPPED = (*_FOREIGN, httpcore.UnsupportedProtocol, httpx.TransportError, httpx.StreamError, httpx.InvalidURL)
"""What other libraries raise when a connection fails, before and after httpx has mapped it."""

_SHORT = 64 << 10
"""Bytes of a body that are cheaper to read than a connection is to make."""


class _Tracked(httpcore.SyncBackend):
    """Remembers the sockets it opens, for as long as somebody else does."""

    def __init__(self) -> None:
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, timeout, local_address, socket_options)
        return _TrackedStream(stream, self.sockets)


class _TrackedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, sockets: weakref.WeakSet[socket.socket]) -> None:
        self._stream = stream
        self._sockets = sockets
        found = stream.get_extra_info("socket")
        if isinstance(found, socket.socket):
            sockets.add(found)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, timeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)

    def close(self) -> None:
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _TrackedStream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._sockets)


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        yield from self._stream

    def close(self) -> None:
        self._stream.close()


class Wire(httpx.BaseTransport):
    """A pool of connections. Raises httpcore's exceptions; they are mapped where requests are made."""

    def __init__(self, *, context: ssl.SSLContext | None, proxy: str, http2: bool, connections: int) -> None:
        self._backend = _Tracked()
        options: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": connections,
            "max_keepalive_connections": connections,
            "keepalive_expiry": 30.0,
            "http2": http2,
            "network_backend": self._backend,
        }
        self._pool: httpcore.ConnectionPool = (
            httpcore.HTTPProxy(proxy, **options) if proxy else httpcore.ConnectionPool(**options)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status, headers=answer.headers, stream=_Body(answer.stream), extensions=answer.extensions
        )

    def cut(self) -> None:
        """Shuts every socket down: whoever waits on one gets an error at once."""
        for one in list(self._backend.sockets):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:  # it is closed already
                continue

    def close(self) -> None:
        self._pool.close()


def release(response: httpx.Response, cancel: CancelToken) -> None:
    """Closing an answer that isn't read to its end closes the connection with it, so a short one is: the answer to a
    HEAD has an end, too."""
    length = response.headers.get("content-length", "")
    short = response.request.method == "HEAD" or (length.isdecimal() and int(length) <= _SHORT)
    if short and not (response.is_stream_consumed or response.is_closed or cancel.cancelled):
        with suppress(*FOREIGN_MAPPED):
            for _ in response.iter_raw():
                pass
    response.close()
