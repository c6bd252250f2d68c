"""A tarball before it exists: every member, header, offset and size, from the content's description alone."""

from __future__ import annotations

import base64
import bisect
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from msgspec import Struct

from oci.digest import Digest, parse_digest
from oci.errors import InvalidDocument, InvalidReference
from oci.files import tar

_MODE = 0o644


class MemberContent(Struct, frozen=True):
    """What a member holds: `data` where it is known already, else the blob `digest` of `size` bytes."""

    name: str
    size: int
    data: bytes | None = None
    digest: Digest | None = None

    @classmethod
    def of(cls, name: str, data: bytes) -> MemberContent:
        return cls(name, len(data), data)


class PlannedMember(Struct, frozen=True):
    """A content at its place: `offset` is where its header begins. All in bytes."""

    content: MemberContent
    offset: int
    header: bytes

    @property
    def data_offset(self) -> int:
        return self.offset + len(self.header)

    @property
    def data_end(self) -> int:
        return self.data_offset + self.content.size

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.data_end + -self.data_end % tar.BLOCK


class Piece(Struct, frozen=True):
    """A stretch of a tarball that comes from one place: known bytes, or `length` bytes of a blob from `blob_offset`."""

    offset: int
    length: int
    data: bytes = b""
    member: PlannedMember | None = None
    blob_offset: int = 0


class TarPlan(Struct, frozen=True, dict=True):
    """The members one after the other, and two blocks of zeros. The same content gives the same plan everywhere."""

    format: str
    members: tuple[PlannedMember, ...]

    @property
    def size(self) -> int:
        return (self.members[-1].end if self.members else 0) + len(tar.END)

    @cached_property
    def fingerprint(self) -> str:
        """Says which tarball this is, in 64 hexadecimal characters: names and sizes of all members, digests of blobs,
        and the bytes of what is no blob."""
        sha256 = hashlib.sha256(self.format.encode())
        for member in self.members:
            content = member.content
            sha256.update(member.header)
            sha256.update((content.digest or "").encode() if content.data is None else content.data)
        return sha256.hexdigest()

    def between(self, start: int, end: int) -> Iterator[PlannedMember]:
        """The members that have a byte from `start` to `end`, in order."""
        first = bisect.bisect_right(self.members, start, key=lambda member: member.offset) - 1
        for member in itertools.islice(self.members, max(first, 0), None):
            if member.offset >= end:
                return
            if member.end > start:
                yield member

    def pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yields what the bytes from `start` to `end` are made of, in order and without a gap."""
        for member in self.between(start, end):
            for piece in _pieces_of(member):
                cut = _cut(piece, start, end)
                if cut is not None:
                    yield cut
        last = _cut(Piece(self.size - len(tar.END), len(tar.END), tar.END), start, end)
        if last is not None:
            yield last

    def to_dict(self) -> dict[str, object]:
        members = [
            {
                "name": content.name,
                "size": content.size,
                "digest": content.digest,
                "data": None if content.data is None else base64.b64encode(content.data).decode(),
            }
            for content in (member.content for member in self.members)
        ]
        return {"format": self.format, "fingerprint": self.fingerprint, "members": members}

    @classmethod
    def from_dict(cls, body: Mapping[str, object]) -> TarPlan:
        """Raises InvalidDocument for what `to_dict` didn't make."""
        try:
            plan = lay_out(str(body["format"]), [_content(entry) for entry in body["members"]])  # type: ignore[attr-defined]
        except (ValueError, TypeError, KeyError, AttributeError, InvalidReference) as error:
            raise InvalidDocument(f"not the plan of an archive: {error}") from error
        if plan.fingerprint != body.get("fingerprint"):
            raise InvalidDocument("the plan of an archive was changed: its fingerprint doesn't match")
        return plan


def lay_out(format: str, contents: Iterable[MemberContent]) -> TarPlan:  # noqa: A002 - the field's word
    """Puts the contents one behind the other: regular files of mode 0644, without owner and time."""
    members = []
    offset = 0
    for content in contents:
        member = PlannedMember(content, offset, tar.header(content.name, mode=_MODE, size=content.size))
        members.append(member)
        offset = member.end
    return TarPlan(format, tuple(members))


def _content(entry: Mapping[str, str | int | None]) -> MemberContent:
    data = entry["data"]
    return MemberContent(
        name=str(entry["name"]),
        size=int(entry["size"] or 0),
        data=None if data is None else base64.b64decode(str(data)),
        digest=parse_digest(entry["digest"]) if entry["digest"] else None,
    )


def _pieces_of(member: PlannedMember) -> Iterator[Piece]:
    content = member.content
    yield Piece(member.offset, len(member.header), member.header)
    if content.data is not None:
        yield Piece(member.data_offset, content.size, content.data)
    else:
        yield Piece(member.data_offset, content.size, member=member)
    yield Piece(member.data_end, member.end - member.data_end, tar.padding(content.size))


def _cut(piece: Piece, start: int, end: int) -> Piece | None:
    """Returns the part of a piece between `start` and `end`; None when there is none."""
    low, high = max(piece.offset, start), min(piece.offset + piece.length, end)
    if low >= high:
        return None
    skip = low - piece.offset
    if piece.member is not None:
        return Piece(low, high - low, member=piece.member, blob_offset=skip)
    return Piece(low, high - low, piece.data[skip : skip + high - low])
