"""Where a registry may send us: redirects, Location headers and token realms point anywhere, also inside our network.

A public registry has no business pointing into loopback or private address space. A registry that is itself private
may point into private space, a registry on loopback anywhere but to link-local addresses and to the services that hand
out a machine's cloud credentials, which no registry may. A host is resolved once, judged, and connected to at one of
the addresses that were judged: a name that answers differently the next time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Collection
from enum import IntEnum
from typing import TypeAlias

from oci.errors import Refused
from oci.registry.http.errors import Peer
from oci.registry.http.origin import Origin, origin_of

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_REMEMBERED = 60.0
"""Seconds for which the addresses of a host are used again."""

_METADATA = tuple(
    map(
        ipaddress.ip_network,
        (
            "fd00:ec2::/32",  # Amazon: the instance, pods (::23), DNS
            "fd20:ce::254/128",  # Google
            "168.63.129.16/32",  # Azure
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle
            "fd00:c1::a9fe:a9fe/128",
            "fd00:42::42/128",  # Scaleway
        ),
    )
)
"""Where clouds serve the credentials of a machine, as far as it isn't a link-local address."""

ALLOWED = "--registry-allow-private-redirects (`allow_private_redirects` in mirrors.yaml and forms)"
_METADATA_NAMES = frozenset({"metadata.google.internal", "metadata.goog", "metadata"})
_OWN_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), _OWN_NAT64, ipaddress.IPv6Network("::ffff:0:0:0/96"))
"""Of NAT64 (RFC 6052, RFC 8215) and of SIIT (RFC 2765)."""
_COMPATIBLE = ipaddress.IPv6Network("::/96")
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All that is routed in the Internet (RFC 4291, 2.4). Python's tables don't know what was set apart after them."""
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")
"""RFC 9637"""


class Reach(IntEnum):
    """How near an address is; the larger, the fewer registries may point there."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    FORBIDDEN = 3


def is_loopback(host: str) -> bool:
    """`host` without a port: localhost, *.localhost, 127.0.0.0/8, ::1."""
    name = host.strip("[]").lower().removesuffix(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_of(registry: str) -> str:
    """The host of `HOST[:PORT]` in its normal form, IPv6 brackets removed."""
    return origin_of(registry).host


def reach_of(address: str) -> Reach:
    """Judges an address, and each IPv4 address that it carries inside: mapped, compatible, NAT64, 6to4, Teredo."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return Reach.FORBIDDEN
    return max((_plain(parsed), *map(_plain, _embedded(parsed))))


class AddressPolicy:
    """Judges the hosts that one registry points to. `named` are the registries that the user named, None where all are
    his: one that only a lock or a bundle names may be no nearer than the nearest of them. Safe from any thread."""

    def __init__(self, peer: Peer, named: Collection[str] | None = None) -> None:
        self._peer = peer
        self._host = host_of(peer.registry)
        self.http_allowed = peer.settings.insecure or is_loopback(self._host)
        hosts = {host_of(name) for name in named or ()}
        self._named = hosts if hosts and self._host not in hosts else {self._host}
        self._lock = threading.Lock()
        self._resolved: dict[str, tuple[tuple[str, ...], float]] = {}

    def check(self, origin: Origin, pointer: str) -> None:
        """Raises Refused unless `origin` may be asked; `pointer` names what pointed there ("a redirect")."""
        if origin.scheme == "http" and not (is_loopback(origin.host) or self.http_allowed):
            raise self.refused(f"{pointer} points to plain http on {origin.host}")
        self._judge(origin.host, self._lookup(origin.host), pointer)

    def addresses(self, origin: Origin) -> tuple[str, ...]:
        """The addresses to connect to, in the resolver's order. Raises OSError when the host has none, Refused when it
        has one that the registry may not point to."""
        addresses = self._lookup(origin.host)
        self._judge(origin.host, addresses, "an answer")
        if not addresses:
            raise OSError(f"the host name {origin.host} can't be resolved")
        return addresses

    def _judge(self, host: str, addresses: tuple[str, ...], pointer: str) -> None:
        """One address that isn't allowed is enough, for the connection may go to any. A name that doesn't resolve here
        can only be reached through a proxy."""
        reach = max(map(reach_of, addresses), default=Reach.PUBLIC)
        if host in _METADATA_NAMES:
            reach = Reach.FORBIDDEN
        if is_loopback(host):
            reach = max(reach, Reach.LOOPBACK)
        if reach is Reach.FORBIDDEN:
            raise self.refused(f"{pointer} points to {host}, inside a private network that no registry is part of")
        if reach is Reach.PUBLIC or host in self._named:
            return
        if not self._peer.settings.allow_private_redirects and reach > max(
            Reach.LOOPBACK if is_loopback(name) else max(map(reach_of, self._lookup(name)), default=Reach.PUBLIC)
            for name in self._named
        ):
            where = "on this machine" if reach is Reach.LOOPBACK else "inside a private network"
            if host == self._host:
                pointer = "a lock or a bundle"
            raise self.refused(f"{pointer} points to {host}, {where}", f"{ALLOWED} allows it, if that is right")

    def _lookup(self, host: str) -> tuple[str, ...]:
        """The addresses of a host, none when it can't be resolved."""
        now = time.monotonic()
        with self._lock:
            remembered = self._resolved.get(host)
        if remembered is not None and remembered[1] > now:
            return remembered[0]
        try:
            # For text, Python imports its tables of international names: 2 ms for a name in its normal form.
            answers = socket.getaddrinfo(host.encode("ascii"), None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return ()
        addresses = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
        with self._lock:
            self._resolved[host] = (addresses, now + _REMEMBERED)
        return addresses

    def refused(self, message: str, hint: str = "this looks like an attack or a broken registry") -> Refused:
        """The error for what a registry points to."""
        return self._peer.error(Refused, message, operation="following a redirect", hint=hint)


def _plain(address: _Address) -> Reach:
    if any(address in network for network in _METADATA) or address.is_link_local or address.is_multicast:
        return Reach.FORBIDDEN
    if address.is_loopback or address.is_unspecified:
        return Reach.LOOPBACK  # 0.0.0.0 and :: reach this machine, too
    if address in _SHARED or not address.is_global:
        return Reach.PRIVATE
    if isinstance(address, ipaddress.IPv6Address) and (address not in _UNICAST or address in _DOCUMENTATION):
        return Reach.PUBLIC if address in _TRANSLATED[0] else Reach.PRIVATE
    return Reach.PUBLIC


def _embedded(address: _Address) -> list[ipaddress.IPv4Address]:
    """The IPv4 addresses that packets to an IPv6 address may end at."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    bits = int(address)
    last = ipaddress.IPv4Address(bits & 0xFFFFFFFF)
    embedded = [mapped for mapped in (address.ipv4_mapped, address.sixtofour) if mapped is not None]
    if address.teredo is not None:
        embedded += address.teredo
    if any(address in network for network in _TRANSLATED):
        embedded.append(last)
    if address in _OWN_NAT64:  # with a prefix of 48, 56 or 64 bits, too (RFC 6052, 2.2)
        spread = (bits >> 64 & 0xFFFF) << 16 | bits >> 40 & 0xFFFF, (bits >> 64 & 0xFF) << 24 | bits >> 32 & 0xFFFFFF
        embedded += [ipaddress.IPv4Address(number) for number in (*spread, bits >> 24 & 0xFFFFFFFF) if number]
    if address in _COMPATIBLE and int(address) > 1:
        embedded.append(last)
    if (int(address) >> 32) & 0xFFFFFFFF in (0x00005EFE, 0x02005EFE):  # ISATAP (RFC 5214, 6.1)
        embedded.append(last)
    return embedded
