"""Names of registries: Docker Hub has several."""

from __future__ import annotations

from oci.reference import HUB

_HUB_NAMES = frozenset({"docker.io", HUB, "registry-1.docker.io", "registry.hub.docker.com"})


def canonical_host(host: str) -> str:
    """`docker.io` and its like are one registry: `index.docker.io`."""
    return HUB if host.lower() in _HUB_NAMES else host.lower()


def split_pattern(text: str) -> tuple[str, str]:
    """Host and path of what configuration files write for a registry: with or without a scheme, with or without the
    API's version as the path."""
    rest = text.partition("://")[2] or text
    host, _, path = rest.partition("/")
    path = path.strip("/")
    for version in ("v1", "v2"):
        if path == version or path.startswith(f"{version}/"):
            path = path[len(version) :].strip("/")
    return canonical_host(host), path
