"""Every kind of request that is sent to a registry, as a table: what the distribution-spec expects as the answer, and
what is done on any other.

The numbers are those of the specification's table (distribution-spec 1.1, "Endpoints"). A kind with a plain way is an
optimisation or a probe: no answer to it is fatal. Any answer that isn't expected leads to the plain way, once, and is
remembered for that registry (`profiles.Learned`). A kind without a plain way is the plain way itself: any other answer
is an error.
"""

from __future__ import annotations

from typing import Any

import msgspec

from oci.errors import FETCHING
from oci.registry.http.request import Request, Scope
from oci.registry.http.target import Target


class Kind(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """`resource` is what is counted and paced. `expect` are the answers that mean success, those of the specification
    first, then those that registries give as well; `absent` are answers that mean "it isn't there"."""

    method: str
    resource: str
    endpoint: str
    operation: str
    expect: frozenset[int]
    absent: frozenset[int] = frozenset()
    title: str = ""
    """Names the kind where the report says that it was refused."""

    plain_way: str = ""
    """What is done instead, in the words of the report; empty: an answer that isn't expected is an error."""

    apart: bool = False
    """As in Scope."""

    @property
    def actions(self) -> str:
        """What a login has to be allowed (distribution, "Token Scope Documentation")."""
        if self.method == "DELETE" and self.resource == "manifest":
            return "pull,push,delete"
        return "pull,push" if self.method == "PUT" or self.resource == "upload" else "pull"

    def request(self, target: Target, repository: str, subject: str, **more: Any) -> Request:
        """A kind with a plain way isn't repeated after a failure: the plain way is, if that fails too."""
        return Request(
            method=self.method,
            target=target,
            kind=self.resource,
            scopes=more.pop("scopes", (Scope(repository, self.actions, self.apart),)),
            operation=more.pop("operation", self.operation),
            subject=subject,
            expect=self.expect | self.absent,
            retry=more.pop("retry", not self.plain_way),
            **more,
        )


def _answers(*statuses: int) -> frozenset[int]:
    return frozenset(statuses)


HEAD_MANIFEST = Kind(
    method="HEAD",
    resource="manifest",
    endpoint="end-3",
    operation="looking for the manifest",
    expect=_answers(200),
    absent=_answers(404),
    title="HEAD of a manifest",
    plain_way="GET used",
)
GET_MANIFEST = Kind(method="GET", resource="manifest", endpoint="end-3", operation=FETCHING, expect=_answers(200))
PUT_MANIFEST = Kind(
    method="PUT",
    resource="manifest",
    endpoint="end-7",
    operation="pushing the manifest",
    expect=_answers(201, 200, 202, 204),
)
DELETE_MANIFEST = Kind(
    method="DELETE",
    resource="manifest",
    endpoint="end-9",
    operation="deleting the manifest",
    expect=_answers(202, 200, 204),
    absent=_answers(404),
)
HEAD_BLOB = Kind(
    method="HEAD",
    resource="blob",
    endpoint="end-2",
    operation="looking for the blob",
    expect=_answers(200),
    absent=_answers(404),
    title="HEAD of a blob",
    plain_way="GET of its first byte used",
)
GET_FIRST_BYTE = Kind(
    method="GET",
    resource="blob",
    endpoint="end-2",
    operation="looking for the blob",
    expect=_answers(200, 206),
    absent=_answers(404),
)
GET_BLOB = Kind(
    method="GET", resource="blob", endpoint="end-2", operation="reading the blob", expect=_answers(200, 206)
)
GET_RANGE = Kind(
    method="GET",
    resource="blob",
    endpoint="end-2",
    operation="reading the blob",
    expect=_answers(206, 200),
    title="a range of a blob",
    plain_way="the whole blob read",
)
POST_SELF_MOUNT = Kind(
    method="POST",
    resource="upload",
    endpoint="end-11",
    operation="starting the upload",
    expect=_answers(201, 202),
    title="a mount from the repository itself",
    plain_way="HEAD used",
)
POST_MOUNT = Kind(
    method="POST",
    resource="upload",
    endpoint="end-11",
    operation="mounting the blob",
    expect=_answers(201, 202),
    title="a mount from another repository",
    plain_way="an upload used",
)
POST_BLOB = Kind(
    method="POST",
    resource="upload",
    endpoint="end-4b",
    operation="uploading the blob",
    expect=_answers(201, 202),
    title="single POST",
    plain_way="PUT used",
)
POST_UPLOAD = Kind(
    method="POST",
    resource="upload",
    endpoint="end-4a",
    operation="starting the upload",
    expect=_answers(202),
)
PATCH_UPLOAD = Kind(
    method="PATCH",
    resource="upload",
    endpoint="end-5",
    operation="uploading the blob",
    expect=_answers(202, 201, 204),
    title="PATCH",
    plain_way="one PUT used",
)
PUT_UPLOAD = Kind(
    method="PUT",
    resource="upload",
    endpoint="end-6",
    operation="uploading the blob",
    expect=_answers(201, 200, 202, 204),
    title="a body of this size",
    plain_way="chunks used",
)
GET_UPLOAD = Kind(
    method="GET",
    resource="upload",
    endpoint="end-13",
    operation="asking how far the upload got",
    expect=_answers(204, 200, 202),
    title="asking how far an upload got",
    plain_way="a new upload used",
)
DELETE_UPLOAD = Kind(
    method="DELETE",
    resource="upload",
    endpoint="end-14",
    operation="cancelling the upload",
    expect=_answers(204, 200, 202),
    absent=_answers(400, 404, 405),
    title="cancelling an upload",
    plain_way="it is left to end by itself",
)
GET_TAGS = Kind(method="GET", resource="tags", endpoint="end-8a", operation="listing the tags", expect=_answers(200))
GET_TAGS_PAGE = Kind(
    method="GET",
    resource="tags",
    endpoint="end-8b",
    operation="listing the tags",
    expect=_answers(200),
    title="a page size for lists",
    plain_way="lists read without it",
)
GET_TAGS_AFTER = Kind(
    method="GET",
    resource="tags",
    endpoint="end-8b",
    operation="listing the tags",
    expect=_answers(200),
    title="a list after its last name",
    plain_way="the first page is the list",
)
GET_CATALOG = Kind(
    method="GET",
    resource="catalog",
    endpoint="Docker Registry HTTP API V2, _catalog",
    operation="listing the repositories",
    expect=_answers(200),
)
GET_REFERRERS = Kind(
    method="GET",
    resource="referrers",
    endpoint="end-12",
    operation="listing the referrers",
    expect=_answers(200),
    title="the referrers API",
    plain_way="the fallback tag used",
    apart=True,
)
KINDS = {name: kind for name, kind in globals().items() if isinstance(kind, Kind)}
