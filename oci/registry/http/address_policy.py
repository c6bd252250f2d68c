"""Where a registry may send us: redirects, Location headers and token realms point anywhere, also inside our network.

A public registry has no business pointing into loopback, private or link-local address space (cloud metadata services
live there). A registry that is itself private may.
"""

from __future__ import annotations

import ipaddress
import socket
import threading

from oci.errors import InvalidReference, Refused
from oci.registry.http.origin import origin_of, split_url


def is_loopback(host: str) -> bool:
    """`host` without a port: localhost, *.localhost, 127.0.0.0/8, ::1."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(registry: str) -> str:
    """The host of `HOST[:PORT]` in its normal form, IPv6 brackets removed."""
    return origin_of(registry).host


class Guard:
    """Judges the hosts that one registry points to. Names are resolved once."""

    def __init__(self, registry: str, *, side: str, allow_private: bool, http_allowed: bool) -> None:
        self._registry = registry
        self._side = side
        self._allow_private = allow_private
        self._http_allowed = http_allowed
        self._lock = threading.Lock()
        self._judged: dict[str, bool] = {}

    def check(self, url: str, what: str) -> None:
        """Raises Refused unless `url` (absolute) may be followed; `what` says in words what pointed there."""
        try:
            origin, _ = split_url(url)
        except InvalidReference as error:
            raise self._refused(f"{what} points to something that is no web address") from error
        host = origin.host
        own = host == host_of(self._registry)
        if origin.scheme == "http" and not (is_loopback(host) or self._http_allowed):
            raise self._refused(f"{what} points to plain http on {host}")
        if not own and not self._allow_private and self._private(host) and not self._private(host_of(self._registry)):
            raise self._refused(
                f"{what} points to {host}, inside a private network",
                "allow private redirects for this registry if that is right",
            )

    def _private(self, host: str) -> bool:
        with self._lock:
            if host not in self._judged:
                self._judged[host] = _resolves_privately(host)
            return self._judged[host]

    def _refused(self, message: str, hint: str = "") -> Refused:
        return Refused(
            message,
            side=self._side,
            store=self._registry,
            operation="following a redirect",
            hint=hint or "this looks like an attack or a broken registry",
        )


def _resolves_privately(host: str) -> bool:
    """One private address among several is enough. A name that doesn't resolve here can't be reached from here
    either, unless through a proxy: then it isn't our network that is at risk."""
    if is_loopback(host):
        return True
    try:
        found = {info[4][0] for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return False
    return any(not ipaddress.ip_address(str(address).partition("%")[0]).is_global for address in found)
