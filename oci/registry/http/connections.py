"""Connecting to hosts: judged addresses, proxies, TLS, and connections that serve again.

A thread that waits for bytes can't look at a cancel token; shutting its socket down wakes it, so every socket is known
here for as long as it lives.
"""

from __future__ import annotations

import base64
import functools
import os
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from oci.digest import Chunk
from oci.errors import InvalidInput, InvalidReference
from oci.output import check_no_pipe
from oci.registry.http.address_policy import AddressPolicy, is_loopback
from oci.registry.http.body import Response, WireError
from oci.registry.http.errors import Peer, at_proxy
from oci.registry.http.http1 import Connection, Socket, shut_down
from oci.registry.http.origin import Origin, Proxy, is_exempt, origin_of

if TYPE_CHECKING:
    from oci.registry.http.http2 import Http2Connections, Http2Response

_KEPT_SECONDS = 30.0
"""A connection that was idle for longer isn't used again: load balancers close them after a minute or less."""


class Connections:
    """The connections to one registry and to the hosts that it points to. Safe from any thread."""

    def __init__(self, peer: Peer, policy: AddressPolicy) -> None:
        self._settings = settings = peer.settings
        self._where = str(peer)
        self._policy = policy
        self._proxy = parse_proxy(settings.proxy) if settings.proxy else None
        self._proxies: dict[Origin, Proxy | None] = {}
        self._lock = threading.Lock()
        self._idle: dict[Origin, list[Connection]] = {}
        self._closed = False
        self._is_cut = False
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._http2: Http2Connections | None = None
        if settings.ca_files or settings.client_certificate or settings.client_key:
            self._context()  # a file that can't be used is reported before work begins
        if settings.http2:
            from oci.registry.http.http2 import Http2Connections  # noqa: PLC0415 - few registries require it

            proxy = self.proxy_for(origin_of(peer.registry))
            self._http2 = Http2Connections(peer, policy, self._context(), proxy, self._watch)

    def exchange(
        self,
        origin: Origin,
        method: str,
        path: str,
        fields: Mapping[str, str],
        *,
        body: bytes = b"",
        stream: Iterable[Chunk] | None = None,
        length: int | None = None,
        repeatable: bool = False,
    ) -> Response | Http2Response:
        """Sends one request and reads the header of its answer, which the caller has to release. Raises WireError, and
        what the stream raises. A server may close an idle connection just when it is used again: a `repeatable`
        request is then sent on another."""
        settings = self._settings
        if self._http2 is not None and origin.scheme == "https":
            return self._http2.exchange(origin, method, path, fields, body=body if stream is None else stream)
        head = self._head(origin, method, path, fields)
        while True:
            connection = self._take(origin)
            served = connection.served
            try:
                connection.request(head, body, stream, length, settings.idle_timeout)
                response = connection.answer(method, settings.header_timeout)
            except BaseException as error:
                connection.close()
                if served and repeatable and isinstance(error, WireError) and error.unanswered and not self._is_cut:
                    continue
                raise
            response.ended_with = partial(self._give_back, origin, connection)
            return response

    def probe(self, origin: Origin) -> None:
        """Finds out whether a host speaks TLS. Certificates aren't verified for that, and nothing is sent. Raises
        WireError when it doesn't."""
        self._connect(origin, probe=True).close()

    def proxy_for(self, origin: Origin) -> Proxy | None:
        if origin not in self._proxies:
            self._proxies[origin] = self._proxy or environment_proxy(origin)
        return self._proxies[origin]

    def _head(self, origin: Origin, method: str, path: str, fields: Mapping[str, str]) -> bytes:
        """The header of a request, without the empty line at its end. To a proxy, plain http is sent with the origin
        before the path (RFC 9112, 3.2.2) and with the login for the proxy."""
        text = f"{method} {path} HTTP/1.1\r\nHost: {origin.authority}\r\n"
        if origin.scheme == "http" and (proxy := self.proxy_for(origin)) is not None:
            login = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
            text = f"{method} {origin}{path} HTTP/1.1\r\nHost: {origin.authority}\r\n{login}"
        for name, value in fields.items():
            if "\n" in value or "\r" in value:
                raise InvalidInput(f"{self._where}: the header {name} has a line break in it")
            text += f"{name}: {value}\r\n"
        return text.encode("latin-1", "replace")

    def _take(self, origin: Origin) -> Connection:
        """A connection to a host that serves no other request now."""
        now = time.monotonic()
        while True:
            with self._lock:
                waiting = self._idle.get(origin)
                connection = waiting.pop() if waiting else None
            if connection is None:
                return self._connect(origin)
            idle = now - connection.idle_since
            # Also after a moment: an answer that a server or a proxy sends twice isn't the answer to the next request.
            if idle < _KEPT_SECONDS and not connection.is_stale():
                return connection
            connection.close()

    def _give_back(self, origin: Origin, connection: Connection) -> None:
        """Keeps a connection for the next request when it may serve again."""
        connection.idle_since = time.monotonic()
        with self._lock:
            reusable = connection.reusable and not self._closed
            if reusable:
                self._idle.setdefault(origin, []).append(connection)
        if not reusable:
            connection.close()

    def _watch(self, sock: socket.socket) -> None:
        """Have `cut` find a socket. The lock keeps the set as it is while another thread goes through it."""
        with self._lock:
            self._sockets.add(sock)

    def cut(self) -> None:
        """Shuts every socket down: what waits on one gets an error at once, and doesn't try on another."""
        self._is_cut = True
        with self._lock:
            sockets = list(self._sockets)
        for sock in sockets:
            shut_down(sock)

    def close(self) -> None:
        if self._http2 is not None:
            self._http2.close()
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def _connect(self, origin: Origin, *, probe: bool = False) -> Connection:
        proxy = self.proxy_for(origin)
        try:
            if proxy is None:
                sock: Socket = self._dial(self._policy.addresses(origin), origin.port)
            else:
                sock = self._through(proxy, origin)
            if origin.scheme == "https":
                sock = self._with_tls(sock, origin.host, probe=probe)
        except OSError as error:
            raise WireError(_why(error), timed_out=isinstance(error, TimeoutError), connecting=True) from error
        return Connection(sock, tls=origin.scheme == "https")

    def _dial(self, addresses: tuple[str, ...], port: int) -> socket.socket:
        """Connects to the first address that answers. Raises the last address's OSError."""
        problem = OSError("no address")
        for address in addresses:
            sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
            self._watch(sock)
            try:
                sock.settimeout(self._settings.connect_timeout)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.connect((address, port))
                if self._is_cut:
                    raise ConnectionAbortedError("the run is being ended")
            except OSError as error:
                sock.close()
                problem = error
            else:
                return sock
        raise problem

    def _through(self, proxy: Proxy, origin: Origin) -> Socket:
        """A connection to a proxy, for https with a tunnel to the host (RFC 9110, 9.3.6). What fails there is said of
        the proxy, and is nothing that the registry did."""
        self._policy.check(origin, "an answer")
        status = 200
        try:
            answers = socket.getaddrinfo(proxy.origin.host, proxy.origin.port, type=socket.SOCK_STREAM)
            sock: Socket = self._dial(tuple(dict.fromkeys(str(answer[4][0]) for answer in answers)), proxy.origin.port)
            if proxy.origin.scheme == "https":
                sock = self._with_tls(sock, proxy.origin.host, probe=False)
            if origin.scheme == "https":
                status = self._ask_for_tunnel(sock, proxy, origin)
        except (OSError, WireError) as error:
            why = _why(error) if isinstance(error, OSError) else str(error)
            timed_out = isinstance(error, TimeoutError) or (isinstance(error, WireError) and error.timed_out)
            raise at_proxy(proxy, origin, why, timed_out=timed_out) from error
        if 200 <= status < 300:
            return sock
        sock.close()
        raise at_proxy(proxy, origin, "", status=status)

    def _ask_for_tunnel(self, sock: Socket, proxy: Proxy, origin: Origin) -> int:
        place = f"{f'[{origin.host}]' if ':' in origin.host else origin.host}:{origin.port}"
        login = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
        tunnel = Connection(sock, tls=False)
        try:
            tunnel.request(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{login}".encode(), b"", None, None, 30.0)
            return tunnel.answer("CONNECT", self._settings.connect_timeout).status
        except WireError:
            tunnel.close()
            raise

    def _with_tls(self, sock: Socket, host: str, *, probe: bool) -> Socket:
        context = _probing() if probe else self._context()
        sock.settimeout(self._settings.connect_timeout)
        wrapped: ssl.SSLSocket | None = None
        try:
            if isinstance(sock, ssl.SSLSocket):  # TLS inside the TLS of a proxy
                from urllib3.util.ssltransport import SSLTransport  # noqa: PLC0415 - few proxies speak TLS

                return cast("Socket", SSLTransport(sock, context, server_hostname=host))
            wrapped = context.wrap_socket(
                cast("socket.socket", sock), server_hostname=host.encode("ascii"), do_handshake_on_connect=False
            )
            self._watch(wrapped)  # before the handshake: a cancelled run doesn't wait for it
            if self._is_cut:
                raise ConnectionAbortedError("the run is being ended")
            wrapped.do_handshake()
        except (OSError, ValueError) as error:
            (wrapped or sock).close()
            if isinstance(error, OSError):
                raise
            raise OSError(f"TLS isn't possible with {host}: {error}") from error
        return wrapped

    def _context(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            return _tls(settings.verify_tls, settings.ca_files, settings.client_certificate, settings.client_key)
        except InvalidInput as error:
            raise InvalidInput(f"{self._where}: {error.message}", hint=error.hint) from error.__cause__


@functools.lru_cache(1)
def _probing() -> ssl.SSLContext:
    """A context that costs nothing to make: reading the system's authorities takes 15 ms."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@functools.lru_cache(32)
def _tls(verify: bool, ca_files: tuple[str, ...], certificate: str, key: str) -> ssl.SSLContext:
    """One context for all connections with the same files. Raises InvalidInput."""
    context = ssl.create_default_context()
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for path in ca_files:
        try:
            check_no_pipe(path)
            context.load_verify_locations(cafile=path)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"{path} can't be used as a CA file: {_why_not(error)}", hint="name a readable PEM file"
            ) from error
    if key and not certificate:
        raise InvalidInput(f"a client's key without its certificate: {key}", hint="name the certificate too")
    if certificate:
        try:
            check_no_pipe(certificate)
            check_no_pipe(key or certificate)
            context.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as error:
            raise InvalidInput(
                f"{certificate} can't be used as a client certificate: {error}",
                hint="name PEM files of a certificate and its key, without a passphrase",
            ) from error
    return context


def _why_not(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "it has no certificate" if "NO_CERTIFICATE" in str(error) else str(error.reason)
    return (error.strerror or str(error)).lower()


def _why(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "it can't be connected to in time"
    return str(error) if isinstance(error, ssl.SSLError) else error.strerror or str(error)


@functools.lru_cache(64)
def parse_proxy(text: str) -> Proxy:
    """Reads `http://[USER:PASSWORD@]HOST[:PORT]`, with https or without a scheme as well. Raises InvalidInput."""
    scheme, _, authority_and_path = text.rpartition("://")
    if scheme.lower().startswith("socks"):
        raise InvalidInput(
            f"the proxy can't be used: {scheme}:// is a SOCKS proxy",
            hint="name an HTTP proxy in HTTPS_PROXY (it goes before ALL_PROXY), or the registry's host in NO_PROXY",
        )
    login, _, authority = authority_and_path.partition("/")[0].rpartition("@")
    try:
        origin = origin_of(authority, scheme.lower() or "http")
    except InvalidReference as error:
        raise InvalidInput(
            f"the proxy can't be used: {error.message}", hint="write http://HOST:PORT or https://HOST:PORT"
        ) from error
    if not login:
        return Proxy(origin)
    user, _, password = login.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode()).decode()
    return Proxy(origin, f"Basic {token}")


def environment_proxy(origin: Origin, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy for an origin, or None for a direct connection. Loopback addresses are never reached through one."""
    environ = os.environ if environ is None else environ
    if is_loopback(origin.host) or is_exempt(origin, _value(environ, "no_proxy")):
        return None
    text = _value(environ, f"{origin.scheme}_proxy") or _value(environ, "all_proxy")
    return parse_proxy(text) if text else None


def _value(environ: Mapping[str, str], name: str) -> str:
    """Lower case goes first, as in curl. HTTP_PROXY may come from a client's header in a CGI program (httpoxy)."""
    if name == "http_proxy" and "REQUEST_METHOD" in environ:
        return environ.get(name, "").strip()
    return (environ.get(name) or environ.get(name.upper()) or "").strip()
