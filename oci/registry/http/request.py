"""One request to a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from oci.registry.auth import Scope
from oci.registry.http.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Statuses in `expect` are given to the caller; any other is raised. `kind` is what is
    counted: manifest, blob, upload, tags, referrers, catalog."""

    method: str
    target: Target
    kind: str
    scopes: tuple[Scope, ...]
    operation: str
    subject: str
    expect: frozenset[int]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    stream: Callable[[], Iterator[bytes]] | None = None
    length: int | None = None
    retry: bool = True
    follow: bool = True

    @property
    def is_large(self) -> bool:
        return self.stream is not None or (self.kind == "blob" and self.method == "GET")
