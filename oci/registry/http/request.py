"""One request to a registry, and where it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from urllib.parse import urlencode

import msgspec

from oci.digest import Chunk
from oci.registry.http.origin import Origin, ascii_target


class Target(msgspec.Struct, frozen=True):
    """`path` is what stands in the request line, query included. `origin` is None for an end-point of the registry
    itself."""

    path: str
    origin: Origin | None = None

    def __str__(self) -> str:
        return f"{self.origin}{self.path}" if self.origin else self.path

    def with_query(self, **parameters: str) -> Target:
        """With parameters added to the query that it has (distribution-spec: `PUT <location>?digest=...`)."""
        if not parameters:
            return self
        mark = "&" if "?" in self.path else "?"
        return msgspec.structs.replace(self, path=f"{self.path}{mark}{urlencode(parameters)}")

    def next_page(self, link: str) -> Target:
        """The page of this list that a Link header names. Only the query of the link counts: a list never leads to
        another host or repository, and registries behind a proxy name hosts and paths that don't exist outside."""
        query = ascii_target(link.partition("#")[0].partition("?")[2])
        return msgspec.structs.replace(self, path=f"{self.path.partition('?')[0]}?{query}")


BASE = Target("/v2/")
"""Says which API a registry has, and how it wants logins (end-1)."""


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
    """Without `scopes` no login is ever sent, not even to the registry's own host: a bundle may have chosen the URL.
    Statuses in `expect` are given to the caller; any other is raised. `kind` is what is counted: manifest, blob,
    upload, tags, referrers, catalog. A body that is a `stream` has a `length`; each call begins it anew."""

    method: str
    target: Target
    kind: str
    scopes: tuple[Scope, ...]
    operation: str
    subject: str
    expect: AbstractSet[int]
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
