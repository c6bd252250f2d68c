"""The form in which names of registries are compared: `Docker.IO`, `https://index.docker.io/v1/` and `docker.io:443`
are one registry."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from oci.errors import InvalidInput, InvalidReference
from oci.reference import HUB, parse_any
from oci.registry.http.origin import origin_of

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
