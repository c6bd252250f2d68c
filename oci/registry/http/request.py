"""One request to a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from oci.digest import Chunk
from oci.registry.http.target import Target


class Scope(msgspec.Struct, frozen=True):
    """What a request needs to be allowed to do. `actions` is `pull`, `pull,push` or `pull,push,delete`; an empty
    repository means the registry's catalog."""

    repository: str
    actions: str
    apart: bool = False
    """Of a kind of request that Harbor refuses with 401 whatever the token: it says nothing of other kinds."""

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}" if self.repository else "registry:catalog:*"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Statuses in `expect` are given to the caller; any other is raised. `kind` is what is counted: manifest, blob,
    upload, tags, referrers, catalog. A body that is a `stream` has a `length`; each call begins it anew."""

    method: str
    target: Target
    kind: str
    scopes: tuple[Scope, ...]
    operation: str
    subject: str
    expect: frozenset[int]
    headers: Mapping[str, str] = {}
    body: bytes = b""
    stream: Callable[[], Iterator[Chunk]] | None = None
    length: int | None = None
    retry: bool = True
    stays: bool = False
    """Redirects to another origin aren't followed."""

    @property
    def is_large(self) -> bool:
        """Does a body of any length go with it?"""
        return self.stream is not None or (self.kind == "blob" and self.method == "GET")

    @property
    def family(self) -> str:
        """The kind of request that registries limit together: `PUT manifest`, `POST upload`, `GET blob`. Looking for a
        manifest and reading it are one action at ECR (BatchGetImage), and one quota elsewhere."""
        return "GET manifest" if self.kind == "manifest" and self.method == "HEAD" else f"{self.method} {self.kind}"
