"""Scheme, host and port of a URL in one normal form (RFC 6454; RFC 3986, 6.2.2): two spellings compare equal."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import quote, urlsplit

import msgspec

from oci.errors import InvalidInput, InvalidReference
from oci.reference import HUB, parse_any

_PORTS = {"http": 80, "https": 443}
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NAME_LIMIT = 253
"""Characters of a whole host name (RFC 1035, 2.3.4)."""


class Origin(msgspec.Struct, frozen=True):
    """`host` is lower case, in ASCII (IDNA), without brackets and without a trailing dot."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """`HOST` or `HOST:PORT`, as a Host header has it: the port is left out where the scheme implies it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Proxy(msgspec.Struct, frozen=True):
    """`authorization` is the value of Proxy-Authorization, or empty."""

    origin: Origin
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.origin})"


@functools.lru_cache(4096)
def origin_of(registry: str, scheme: str = "https") -> Origin:
    """The origin of `HOST[:PORT]`. Raises InvalidReference when it isn't a host, or when the port isn't a port."""
    return split_url(f"{scheme}://{registry}")[0]


def split_url(url: str) -> tuple[Origin, str]:
    """The origin of an absolute http or https URL, and its path with the query exactly as written: the signature of a
    presigned URL covers each character. Spaces and characters beyond ASCII are percent-encoded, a fragment is left
    out. Raises InvalidReference for any other URL, for a URL with a login, and for control characters."""
    whole = url.partition("#")[0]
    if _CONTROL.search(whole):  # urlsplit takes line breaks and tabs out of it
        raise InvalidReference("a URL with a control character")
    try:
        parts = urlsplit(whole)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise InvalidReference(f"{_short(whole)} is not a URL") from error
    scheme = parts.scheme.lower()
    if scheme not in _PORTS or not parts.netloc:
        raise InvalidReference(f"{_short(whole)} is not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise InvalidReference("a URL with a login in it")
    if port == 0:
        raise InvalidReference(f"{_short(whole)}: 0 is not a port")
    # urlsplit strips nothing behind the authority, but an empty query loses its question mark there.
    after_scheme = whole[whole.index("//") + 2 :]
    start = min((at for mark in "/?" if (at := after_scheme.find(mark)) >= 0), default=len(after_scheme))
    target = after_scheme[start:]
    if not target.startswith("/"):
        target = f"/{target}"
    return Origin(scheme, normal_host(host), port or _PORTS[scheme]), ascii_target(target)


def ascii_target(text: str) -> str:
    """A path or query as it may stand in a request line: spaces and characters beyond ASCII are percent-encoded, all
    others stay. Raises InvalidReference for control characters, which could begin a second request."""
    if _CONTROL.search(text):
        raise InvalidReference("a URL with a control character")
    return text.replace(" ", "%20") if text.isascii() else "".join(c if " " < c < "\x7f" else quote(c) for c in text)


@functools.lru_cache(4096)
def normal_host(host: str) -> str:
    """A host name or address, without brackets, in its normal form. Raises InvalidReference for what is neither."""
    if ":" in host:
        try:
            # A scope (fe80::1%eth0) names an interface of this machine: no registry can know it.
            return str(ipaddress.IPv6Address(host)) if "%" not in host else _refuse(host)
        except ValueError:
            return _refuse(host)
    name = host.lower()
    if not name.isascii():
        import idna  # noqa: PLC0415 - few hosts need it

        try:
            name = idna.encode(name, uts46=True).decode("ascii").lower()
        except (idna.IDNAError, UnicodeError):
            return _refuse(host)
    name = name.removesuffix(".")
    if len(name) > _NAME_LIMIT or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return _refuse(host)
    return name


def _refuse(host: str) -> str:
    raise InvalidReference(
        f"{_short(host)} is not a host name", hint="a host has labels of 1 to 63 characters from a-z 0-9 - _"
    )


def _short(text: str) -> str:
    return repr(text.partition("?")[0][:100])


_HUB_NAMES = frozenset({"docker.io", HUB, "registry-1.docker.io", "registry.hub.docker.com"})


@functools.lru_cache(4096)
def canonical_host(host: str) -> str:
    """`HOST[:PORT]` in lower case, in ASCII, without the port of https; `index.docker.io` for all names of Docker Hub.
    What isn't a host, a pattern of hosts for example, is only brought into lower case."""
    try:
        name = origin_of(host).authority
    except InvalidReference:
        name = host.lower()
    return HUB if name in _HUB_NAMES else name


def check_hosts(names: Iterable[str]) -> None:
    """Raises InvalidInput, whose message begins with the name, for what is no host, such as a pattern of hosts, and
    for a second spelling of one."""
    spellings: dict[str, str] = {}
    for name in names:
        try:
            origin_of(name)
        except InvalidReference as error:
            raise InvalidInput(f"{name}: {error}") from error
        other = spellings.setdefault(canonical_host(name), name)
        if other != name:
            raise InvalidInput(f"{name}: {other!r} is the same registry")


def split_pattern(text: str) -> tuple[str, str]:
    """Host and path of what configuration files write for a registry: with or without a scheme, with or without the
    API's version as the path."""
    address = text.strip().partition("://")[2] or text.strip()
    host, _, path = address.partition("/")
    path = path.strip("/")
    for version in ("v1", "v2"):
        if path == version or path.startswith(f"{version}/"):
            path = path[len(version) :].strip("/")
    return canonical_host(host), path


def named_hosts(references: Iterable[str]) -> frozenset[str]:
    """The registries of references, repositories and folders as a person writes them. What isn't a reference, and what
    is on this machine, has no registry."""
    hosts = set()
    for text in references:
        try:
            registry = parse_any(text.removeprefix("docker://")).repository.registry
        except InvalidInput:
            continue
        if registry:
            hosts.add(canonical_host(registry))
    return frozenset(hosts)


def is_exempt(origin: Origin, text: str) -> bool:
    """Does NO_PROXY name the host: `*`, an address, a network, a domain with all below it (`example.com`,
    `.example.com`, `*.example.com`), each perhaps with a port?"""
    return any(_matches(origin, entry.lower()) for entry in text.replace(",", " ").split())


def _matches(origin: Origin, entry: str) -> bool:
    if entry == "*":
        return True
    address = _address(origin.host)
    if "/" in entry:
        try:
            return address is not None and address in ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return False
    host, port = entry, ""
    if entry.startswith("["):
        host, _, port = entry[1:].partition("]")
        port = port.removeprefix(":")
    elif entry.count(":") == 1:
        host, _, port = entry.partition(":")
    if port and port != str(origin.port):
        return False
    if address is not None or _address(host) is not None:
        return address == _address(host)
    try:
        domain = normal_host(host.removeprefix("*").removeprefix("."))
    except InvalidReference:
        return False
    # Go leaves the domain itself out where the entry begins with a dot, curl doesn't: without a proxy is what is meant.
    return origin.host == domain or origin.host.endswith(f".{domain}")


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IPv4 address in an IPv6 one (`::ffff:10.1.2.3`) is the former, as in Go."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
