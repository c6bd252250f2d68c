"""HTTP/2, for registries that require it: the connections of httpcore behind the interface of ours.

Imported only where it is asked for: it is slower for blobs, and h2 takes 15 ms to load.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import httpcore

from oci.errors import InvalidInput
from oci.registry.http.address_policy import AddressPolicy
from oci.registry.http.body import Headers, WireError
from oci.registry.http.errors import Peer, at_proxy
from oci.registry.http.origin import Origin, Proxy

_FOREIGN = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.ProxyError)


class Http2Connections:
    """See Connections, whose methods these are."""

    def __init__(
        self,
        peer: Peer,
        policy: AddressPolicy,
        context: ssl.SSLContext,
        proxy: Proxy | None,
        watch: Callable[[socket.socket], None],
    ) -> None:
        """`watch` gets each socket, to shut it down when the run is cancelled."""
        if importlib.util.find_spec("h2") is None:
            raise InvalidInput(f"{peer}: HTTP/2 needs the package h2", hint="pip install 'transship[http2]'")
        self._settings = settings = peer.settings
        self._proxy = proxy
        self._watch = watch
        options: dict[str, Any] = {
            "ssl_context": context,
            "max_connections": settings.concurrency + 1,
            "max_keepalive_connections": settings.concurrency + 1,
            "keepalive_expiry": 30.0,
            "http2": True,
            "network_backend": _Backend(policy, proxied=proxy is not None),
        }
        if proxy is None:
            self._pool = httpcore.ConnectionPool(**options)
        else:
            login = [("Proxy-Authorization", proxy.authorization)] if proxy.authorization else []
            self._pool = httpcore.HTTPProxy(str(proxy.origin), proxy_headers=login, **options)

    def exchange(
        self,
        origin: Origin,
        method: str,
        path: str,
        fields: Mapping[str, str],
        *,
        body: bytes | memoryview | Iterable[bytes | memoryview],
    ) -> Http2Response:
        """Sends one request and reads the header of its answer."""
        settings = self._settings
        timeout = {
            "connect": settings.connect_timeout,
            "read": settings.header_timeout,
            "write": settings.idle_timeout,
            "pool": None,
        }
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        request = httpcore.Request(
            method,
            httpcore.URL(scheme=origin.scheme, host=host, port=origin.port, target=path),
            headers=[("Host", origin.authority), *fields.items()],
            # A chunk of an upload is a memoryview, which is iterable as well: of numbers.
            content=bytes(body) if isinstance(body, bytes | memoryview) else map(bytes, body),
            extensions={"timeout": timeout, "trace": self._trace},
        )
        try:
            answer = self._pool.handle_request(request)
        except httpcore.ProxyError as error:
            if self._proxy is None:
                raise
            text = str(error)  # "407 Proxy Authentication Required", or what the backend says
            status = int(text[:3]) if text[:3].isdigit() else 0
            raise at_proxy(self._proxy, origin, text, status=status) from error
        except _FOREIGN as error:
            connecting = isinstance(error, httpcore.ConnectError | httpcore.ConnectTimeout)
            raise _wire_error(error, connecting=connecting) from error.__cause__ or error
        timeout["read"] = settings.idle_timeout
        return Http2Response(answer)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Shows each socket, and the one that TLS makes of it."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            sock = info["return_value"].get_extra_info("socket")
            if isinstance(sock, socket.socket):
                self._watch(sock)

    def close(self) -> None:
        self._pool.close()


class Http2Response:
    """See Response, whose methods these are."""

    def __init__(self, answer: httpcore.Response) -> None:
        self.status = answer.status
        self.headers = Headers()
        for raw_name, raw_value in answer.headers:
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            self.headers.add(name, value)
        self._answer = answer
        self._chunks = answer.iter_stream()

    def chunks(self, idle: float, rate: int) -> Iterator[bytes]:
        """The body in the pieces that it comes in. A body that drips is as dead as a body that stalls."""
        window, got = time.monotonic(), 0
        try:
            for chunk in self._chunks:
                yield chunk
                got += len(chunk)
                now = time.monotonic()
                if now - window > idle:
                    if got < rate * (now - window):
                        raise WireError(f"only {got} bytes in {now - window:.0f} s")
                    window, got = now, 0
        except _FOREIGN as error:
            raise _wire_error(error) from error

    def release(self, *, drain: int = 0) -> None:
        """Ends the stream; the connection serves others all the while."""
        del drain
        with contextlib.suppress(*_FOREIGN):
            self._answer.close()


class _Backend(httpcore.SyncBackend):
    """Connects to the addresses that the policy has judged."""

    def __init__(self, policy: AddressPolicy, *, proxied: bool) -> None:
        self._policy = policy
        self._proxied = proxied

    def connect_tcp(self, host: str, port: int, *others: Any, **more: Any) -> httpcore.NetworkStream:
        problem: Exception = httpcore.ConnectError(f"{host} can't be resolved")
        try:
            addresses = (host,) if self._proxied else self._policy.addresses(Origin("https", host.strip("[]"), port))
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        for address in addresses:
            try:
                return super().connect_tcp(address, port, *others, **more)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise httpcore.ProxyError(str(problem)) if self._proxied else problem


def _wire_error(error: Exception, *, connecting: bool = False) -> WireError:
    timed_out = isinstance(error, httpcore.TimeoutException)
    return WireError(str(error) or type(error).__name__, timed_out=timed_out, connecting=connecting)
