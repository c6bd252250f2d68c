"""Every kind of request that is sent to a registry, as a table: what the distribution-spec expects as the answer, and
what is done on any other; and the end-points that they go to.

The numbers are those of the specification's table (distribution-spec 1.1, "Endpoints"). A kind with a plain way is an
optimisation or a probe: no answer to it is fatal. Any answer that isn't expected leads to the plain way, once, and is
remembered for that registry (`profiles.Learned`). A kind without a plain way is the plain way itself: any other answer
is an error.

Every repository, tag and digest passes its grammar here before it becomes part of a URL. A target of a registry's own
is built by the functions of this module and matches one of the end-points as a whole, so no name can lead to another
repository, whatever document it comes from.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from urllib.parse import urlencode

import msgspec

from oci.digest import Chunk, is_digest
from oci.errors import FETCHING, InvalidReference
from oci.reference import Repository
from oci.registry.http.origin import Origin, ascii_target

_REPOSITORY = re.compile(r"(?!.*(?:^|/)\.{0,2}(?:/|$))[a-z0-9_\-./]{1,255}")
_TAG = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_\-.]{1,128}")


class RequestTarget(msgspec.Struct, frozen=True):
    """`path` is what stands in the request line, query included. `origin` is None for an end-point of the registry
    itself."""

    path: str
    origin: Origin | None = None

    def __str__(self) -> str:
        return f"{self.origin}{self.path}" if self.origin else self.path

    def with_query(self, **parameters: str) -> RequestTarget:
        """With parameters added to the query that it has (distribution-spec: `PUT <location>?digest=...`)."""
        if not parameters:
            return self
        mark = "&" if "?" in self.path else "?"
        return msgspec.structs.replace(self, path=f"{self.path}{mark}{urlencode(parameters)}")

    def next_page(self, link: str) -> RequestTarget:
        """The page of this list that a Link header names. Only the query of the link counts: a list never leads to
        another host or repository, and registries behind a proxy name hosts and paths that don't exist outside."""
        query = ascii_target(link.partition("#")[0].partition("?")[2])
        return msgspec.structs.replace(self, path=f"{self.path.partition('?')[0]}?{query}")


BASE = RequestTarget("/v2/")
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


class Kind(msgspec.Struct, frozen=True, eq=False):
    """`resource` is what is counted and paced: manifest, blob, upload, tags, referrers, catalog. `expect` are the
    answers that mean success, those of the specification first, then those that registries give as well; `absent` are
    answers that mean "it isn't there". Any other status is raised."""

    method: str
    resource: str
    endpoint: str
    operation: str
    expect: AbstractSet[int]
    absent: AbstractSet[int] = frozenset()
    apart: bool = False
    """As in Scope."""

    @property
    def plain_way(self) -> str:
        """What is done instead where it is refused; empty: an answer that isn't expected is an error."""
        return _PLAIN_WAYS[self][1] if self in _PLAIN_WAYS else ""

    def refusal(self, status: int) -> str:
        """Says in the words of the report that it was refused, and what is done instead."""
        title, plain_way = _PLAIN_WAYS[self]
        return f"{title} refused{f' ({status})' if status else ''}, {plain_way}"

    @property
    def actions(self) -> str:
        """What a login has to be allowed (distribution, "Token Scope Documentation")."""
        if self.method == "DELETE" and self.resource == "manifest":
            return "pull,push,delete"
        return "pull,push" if self.method == "PUT" or self.resource == "upload" else "pull"

    @property
    def family(self) -> str:
        """The kind of request that registries limit together: `PUT manifest`, `POST upload`, `GET blob`. Looking for a
        manifest and reading it are one action at ECR (BatchGetImage), and one quota elsewhere."""
        return "GET manifest" if self.resource == "manifest" and self.method == "HEAD" else str(self)

    def __str__(self) -> str:
        """How it is counted."""
        return f"{self.method} {self.resource}"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Without `scopes` no login is ever sent, not even to the registry's own host: a bundle may have chosen the URL.
    A body that is a `stream` has a `length`; each call begins it anew."""

    kind: Kind
    target: RequestTarget
    scopes: tuple[Scope, ...] = ()
    subject: str = ""
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
        return self.stream is not None or (self.kind.resource == "blob" and self.kind.method == "GET")


HEAD_MANIFEST = Kind("HEAD", "manifest", "end-3", "looking for the manifest", {200}, absent={404})
GET_MANIFEST = Kind("GET", "manifest", "end-3", FETCHING, {200})
PUT_MANIFEST = Kind("PUT", "manifest", "end-7", "pushing the manifest", {201, 200, 202, 204})
DELETE_MANIFEST = Kind("DELETE", "manifest", "end-9", "deleting the manifest", {202, 200, 204}, absent={404})
DELETE_TAG = msgspec.structs.replace(DELETE_MANIFEST, operation="deleting the tag")
HEAD_BLOB = Kind("HEAD", "blob", "end-2", "looking for the blob", {200}, absent={404})
GET_FIRST_BYTE = Kind("GET", "blob", "end-2", "looking for the blob", {200, 206}, absent={404})
GET_BLOB = Kind("GET", "blob", "end-2", "reading the blob", {200, 206})
GET_RANGE = msgspec.structs.replace(GET_BLOB)
POST_UPLOAD = Kind("POST", "upload", "end-4a", "starting the upload", {202})
POST_SELF_MOUNT = Kind("POST", "upload", "end-11", "starting the upload", {201, 202})
POST_MOUNT = Kind("POST", "upload", "end-11", "mounting the blob", {201, 202})
POST_BLOB = Kind("POST", "upload", "end-4b", "uploading the blob", {201, 202})
PATCH_UPLOAD = Kind("PATCH", "upload", "end-5", "uploading the blob", {202, 201, 204})
PUT_UPLOAD = Kind("PUT", "upload", "end-6", "uploading the blob", {201, 200, 202, 204})
GET_UPLOAD = Kind("GET", "upload", "end-13", "asking how far the upload got", {204, 200, 202})
DELETE_UPLOAD = Kind("DELETE", "upload", "end-14", "cancelling the upload", {204, 200, 202}, absent={400, 404, 405})
GET_TAGS = Kind("GET", "tags", "end-8a", "listing the tags", {200})
GET_TAGS_PAGE = msgspec.structs.replace(GET_TAGS, endpoint="end-8b")
GET_TAGS_AFTER = msgspec.structs.replace(GET_TAGS, endpoint="end-8b")
GET_CATALOG = Kind("GET", "catalog", "Docker Registry HTTP API V2, _catalog", "listing the repositories", {200})
GET_REFERRERS = Kind("GET", "referrers", "end-12", "listing the referrers", {200}, apart=True)
KINDS = {name: kind for name, kind in globals().items() if isinstance(kind, Kind)}
_PLAIN_WAYS = {
    HEAD_MANIFEST: ("HEAD of a manifest", "GET used"),
    HEAD_BLOB: ("HEAD of a blob", "GET of its first byte used"),
    GET_RANGE: ("a range of a blob", "the whole blob read"),
    POST_SELF_MOUNT: ("a mount from the repository itself", "HEAD used"),
    POST_MOUNT: ("a mount from another repository", "an upload used"),
    POST_BLOB: ("single POST", "PUT used"),
    PATCH_UPLOAD: ("PATCH", "one PUT used"),
    PUT_UPLOAD: ("a body of this size", "chunks used"),
    GET_UPLOAD: ("asking how far an upload got", "a new upload used"),
    DELETE_UPLOAD: ("cancelling an upload", "it is left to end by itself"),
    GET_TAGS_PAGE: ("a page size for lists", "lists read without it"),
    GET_TAGS_AFTER: ("a list after its last name", "the first page is the list"),
    GET_REFERRERS: ("the referrers API", "the fallback tag used"),
}
"""Of each kind that isn't needed: its name where the report says that it was refused, and what is done instead, in the
words of the report."""


def manifest(repository: Repository, identifier: str) -> RequestTarget:
    """`identifier` is a tag or a digest (end-3, end-7, end-9)."""
    if not is_digest(identifier) and not _TAG.fullmatch(identifier):
        raise InvalidReference(
            f"{identifier[:150]!r} is neither a tag nor a digest",
            hint="a tag has up to 128 characters from A-Z a-z 0-9 _ - .; what named it is broken, or an attack",
        )
    return RequestTarget(f"{_prefix(repository.path)}/manifests/{identifier}")


def blob(repository: Repository, digest: str) -> RequestTarget:
    """A blob by digest (end-2, end-10)."""
    return RequestTarget(f"{_prefix(repository.path)}/blobs/{_digest(digest)}")


def uploads(
    repository: Repository, *, digest: str = "", mount: str = "", source: Repository | None = None
) -> RequestTarget:
    """Where uploads start: with `digest` in a single POST, with `mount` and its `source` without bytes (end-4, 11)."""
    target = RequestTarget(f"{_prefix(repository.path)}/blobs/uploads/")
    if mount and source is not None:
        _prefix(source.path)
        return target.with_query(mount=_digest(mount), **{"from": source.path})
    return target.with_query(digest=_digest(digest)) if digest else target


def tags(repository: Repository, **query: str) -> RequestTarget:
    """The list of tags; `query` is `n` and `last` (end-8)."""
    return RequestTarget(f"{_prefix(repository.path)}/tags/list").with_query(**query)


def referrers(repository: Repository, subject: str, artifact_type: str = "") -> RequestTarget:
    """What refers to a manifest (end-12)."""
    target = RequestTarget(f"{_prefix(repository.path)}/referrers/{_digest(subject)}")
    return target.with_query(artifactType=artifact_type) if artifact_type else target


def catalog(**query: str) -> RequestTarget:
    """The registry's repositories; `query` is `n` and `last` (Docker's, not in the specification)."""
    return RequestTarget("/v2/_catalog").with_query(**query)


@functools.lru_cache(1024)
def _prefix(path: str) -> str:
    if not _REPOSITORY.fullmatch(path):
        raise InvalidReference(
            f"{path[:300]!r} is not a repository name",
            hint="a name has segments of a-z 0-9 _ - . between slashes, and none is '.' or '..'",
        )
    return f"/v2/{path}"


def _digest(text: str) -> str:
    if not is_digest(text):
        raise InvalidReference(f"{text[:150]!r} is not a digest")
    return text
