"""One request, in the registry's own terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from oci.registry.auth import Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`target` is a path or an absolute URL (a Location). Statuses in
    `expect` are given to the caller; any other is raised. `kind` is what is counted: manifest, blob, upload, tags,
    referrers, catalog."""

    method: str
    target: str
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
