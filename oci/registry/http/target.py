"""Where a request goes: the end-points of the distribution-spec, and addresses that a registry or a descriptor gives.

Every repository, tag and digest passes its grammar here before it becomes part of a URL. A target of a registry's own
is built by the functions of this module and matches one of the end-points as a whole, so no name can lead to another
repository, whatever document it comes from.
"""

from __future__ import annotations

import functools
import re
from urllib.parse import urlencode

import msgspec

from oci.digest import is_digest
from oci.errors import InvalidReference
from oci.reference import Repository
from oci.registry.http.origin import Origin, ascii_target, split_url

_REPOSITORY = re.compile(r"(?!.*(?:^|/)\.{0,2}(?:/|$))[a-z0-9_\-./]{1,255}")
_TAG = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_\-.]{1,128}")


class Target(msgspec.Struct, frozen=True):
    """`path` is what stands in the request line, query included. `origin` is None for an end-point of the registry
    itself. With `anonymous`, no login is ever sent, not even to the registry's own host: a bundle chose the URL."""

    path: str
    origin: Origin | None = None
    anonymous: bool = False

    def __str__(self) -> str:
        return f"{self.origin}{self.path}" if self.origin else self.path

    def with_query(self, **parameters: str) -> Target:
        """With parameters added to the query that it has (distribution-spec: `PUT <location>?digest=...`)."""
        mark = "&" if "?" in self.path else "?"
        return msgspec.structs.replace(self, path=f"{self.path}{mark}{urlencode(parameters)}")

    def next_page(self, link: str) -> Target:
        """The page of this list that a Link header names. Only the query of the link counts: a list never leads to
        another host or repository, and registries behind a proxy name hosts and paths that don't exist outside."""
        query = ascii_target(link.partition("#")[0].partition("?")[2])
        return msgspec.structs.replace(self, path=f"{self.path.partition('?')[0]}?{query}")


BASE = Target("/v2/")
"""Says which API a registry has, and how it wants logins (end-1)."""


def manifest(repository: Repository, identifier: str) -> Target:
    """`identifier` is a tag or a digest (end-3, end-7, end-9)."""
    if not is_digest(identifier) and not _TAG.fullmatch(identifier):
        raise InvalidReference(
            f"{identifier[:150]!r} is neither a tag nor a digest",
            hint="a tag has up to 128 characters from A-Z a-z 0-9 _ - .; what named it is broken, or an attack",
        )
    return Target(f"{_prefix(repository.path)}/manifests/{identifier}")


def blob(repository: Repository, digest: str) -> Target:
    """A blob by digest (end-2, end-10)."""
    return Target(f"{_prefix(repository.path)}/blobs/{_digest(digest)}")


def uploads(repository: Repository, *, digest: str = "", mount: str = "", source: Repository | None = None) -> Target:
    """Where uploads start: with `digest` in a single POST, with `mount` and its `source` without bytes (end-4, 11)."""
    target = Target(f"{_prefix(repository.path)}/blobs/uploads/")
    if mount and source is not None:
        _prefix(source.path)
        return target.with_query(mount=_digest(mount), **{"from": source.path})
    return target.with_query(digest=_digest(digest)) if digest else target


def tags(repository: Repository, **query: str) -> Target:
    """The list of tags; `query` is `n` and `last` (end-8)."""
    target = Target(f"{_prefix(repository.path)}/tags/list")
    return target.with_query(**query) if query else target


def referrers(repository: Repository, subject: str, artifact_type: str = "") -> Target:
    """What refers to a manifest (end-12)."""
    target = Target(f"{_prefix(repository.path)}/referrers/{_digest(subject)}")
    return target.with_query(artifactType=artifact_type) if artifact_type else target


def catalog(**query: str) -> Target:
    """The registry's repositories; `query` is `n` and `last` (Docker's, not in the specification)."""
    target = Target("/v2/_catalog")
    return target.with_query(**query) if query else target


def absolute(url: str, *, anonymous: bool = False) -> Target:
    """A URL that a registry or a descriptor gives. Raises InvalidReference for what isn't one."""
    origin, path = split_url(url)
    return Target(path, origin, anonymous)


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
