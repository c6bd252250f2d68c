"""A tarball before it exists: every member, header, offset and size, from the content's description alone; and the
parts that it is cut into: units that are written in any order, each alone.

A part begins and ends between two members wherever it can; only a blob bigger than a part is cut. What an older archive
has at one stretch becomes a part that is copied from there.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from oci.archive.options import DEFAULT_SIZE, SMALLEST
from oci.digest import Chunk, Digest
from oci.errors import InvalidInput
from oci.files import tar

MOST_PARTS = 10_000
MOST_PARTS_OF_A_FILE = 100_000
"""Beyond it parts get bigger: those of a file are written as they are read, whatever their size."""

_MODE = 0o644
_COPIED = 4
"""How many times longer than another a part may be that is copied from an older archive."""


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
        return self.data_end + -self.data_end % tar.BLOCK


class Piece(Struct, frozen=True):
    """A stretch of a tarball that comes from one place: known bytes, or `length` bytes of a blob from `blob_offset`."""

    offset: int
    length: int
    data: bytes = b""
    digest: Digest = Digest("")
    """Digest of the blob; empty for known bytes."""
    blob_size: int = 0
    blob_offset: int = 0

    @property
    def is_whole(self) -> bool:
        return self.length == self.blob_size


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
        for whole in self._whole_pieces(start, end):
            low, high = max(whole.offset, start), min(whole.offset + whole.length, end)
            skip = low - whole.offset
            if low < high and whole.digest:
                yield replace(whole, offset=low, length=high - low, blob_offset=skip)
            elif low < high:
                yield Piece(low, high - low, whole.data[skip : skip + high - low])

    def _whole_pieces(self, start: int, end: int) -> Iterator[Piece]:
        """Yields those of the members there, and the end of the tarball."""
        for member in self.between(start, end):
            content = member.content
            yield Piece(member.offset, len(member.header), member.header)
            if content.data is not None:
                yield Piece(member.data_offset, content.size, content.data)
            elif content.digest is not None:
                yield Piece(member.data_offset, content.size, digest=content.digest, blob_size=content.size)
            yield Piece(member.data_end, member.end - member.data_end, tar.padding(content.size))
        yield Piece(self.size - len(tar.END), len(tar.END), tar.END)


def lay_out(format: str, contents: Iterable[MemberContent]) -> TarPlan:  # noqa: A002 - the field's word
    """Puts the contents one behind the other: regular files of mode 0644, without owner and time."""
    members = []
    offset = 0
    for content in contents:
        member = PlannedMember(content, offset, tar.header(content.name, mode=_MODE, size=content.size))
        members.append(member)
        offset = member.end
    return TarPlan(format, tuple(members))


class Part(Struct, frozen=True):
    """Bytes `start` to `end` of a tarball; `number` counts from 1. `copy_from` is where an older archive has the very
    same bytes, or None."""

    number: int
    start: int
    end: int
    copy_from: int | None = None

    @property
    def size(self) -> int:
        return self.end - self.start


ReadPart = Callable[[], Iterator[Chunk]]
"""Gives all the bytes of a part, anew every time. Those it gives first are proven as they pass."""


class StoredPart(Struct, frozen=True, kw_only=True):
    """What a writer knows of a part that is in place: `crc32` where it keeps that, `md5` in hexadecimal likewise."""

    crc32: int | None = None
    md5: str = ""

    def is_of(self, crc32: int, md5: Callable[[], str]) -> bool:
        """Says whether bytes with these checksums are the ones that are in place."""
        return self.crc32 == crc32 if self.crc32 is not None else bool(self.md5) and self.md5 == md5()


def cut(
    plan: TarPlan,
    *,
    size: int = DEFAULT_SIZE,
    smallest: int = SMALLEST,
    most: int = MOST_PARTS,
    base: Mapping[str, int] | None = None,
) -> tuple[Part, ...]:
    """Parts of about `size` bytes, more when there would be more than `most` of them. `base` says where an older
    archive has members, by name: the offset of their header. Raises InvalidInput for what can't be cut so."""
    size = max(size, -(-plan.size // most))
    copied = smallest
    while True:
        pieces = [piece for run in _runs(plan, base or {}, copied) for piece in _cut_run(plan, run, size, smallest)]
        merged = _merged(pieces, smallest)
        if len(merged) <= most:
            return tuple(replace(part, number=number) for number, part in enumerate(merged, 1))
        if size > plan.size:
            raise InvalidInput(f"an archive of {plan.size} bytes can't be cut into {most} parts")
        size += size // 16  # no bigger than it takes, for a part is held in memory, or read twice
        copied += copied // 4


def groups(plan: TarPlan, parts: Sequence[Part], count: int) -> list[tuple[int, ...]]:
    """Returns the numbers of the parts in at most `count` groups of about the same size. A blob is never in two groups,
    so that a process that writes one can prove its blobs."""
    target = max(1, -(-sum(part.size for part in parts) // max(1, count)))
    edges = {member.offset for member in plan.members} | {plan.size}
    grouped: list[list[int]] = [[]]
    filled = 0
    for part in parts:
        grouped[-1].append(part.number)
        filled += part.size
        if filled >= target and part.end in edges and part.number != parts[-1].number:
            grouped.append([])
            filled = 0
    return [tuple(group) for group in grouped]


def _runs(plan: TarPlan, base: Mapping[str, int], shortest: int) -> list[Part]:
    """Returns stretches that are to be copied, and those between them that are to be written, without numbers. A copied
    one has the members of the older archive one behind the other, and `shortest` bytes or more."""
    runs = [Part(0, 0, 0)]
    for member in plan.members:
        where = base.get(member.content.name) if member.content.digest else None
        last = runs[-1]
        if where == (None if last.copy_from is None else last.copy_from + last.size):
            runs[-1] = replace(last, end=member.end)
        else:
            runs.append(Part(0, member.offset, member.end, where))
    runs.append(Part(0, runs[-1].end, plan.size))
    joined: list[Part] = []
    for run in runs:
        if run.copy_from is not None and run.size >= shortest:
            joined.append(run)
        elif joined and joined[-1].copy_from is None:
            joined[-1] = replace(joined[-1], end=run.end)
        elif run.size:
            joined.append(replace(run, copy_from=None))
    return joined


def _cut_run(plan: TarPlan, run: Part, size: int, smallest: int) -> Iterator[Part]:
    if run.copy_from is not None:  # into pieces of the same size, so that none is too short
        count = -(-run.size // (_COPIED * size))
        for number in range(count):
            low, high = run.size * number // count, run.size * (number + 1) // count
            yield Part(0, run.start + low, run.start + high, run.copy_from + low)
        return
    first = bisect.bisect_right(plan.members, run.start, key=lambda member: member.end)
    last = bisect.bisect_left(plan.members, run.end, key=lambda member: member.end)
    edges = [member.end for member in plan.members[first:last]] + [run.end]
    start = at = run.start
    for edge in edges:
        if at - start >= smallest and edge - start > size:
            yield Part(0, start, at)
            start = at
        while edge - start > size + smallest:
            yield Part(0, start, start + size)
            start += size
        if edge - start >= size:
            yield Part(0, start, edge)
            start = edge
        at = edge
    if start < run.end:
        yield Part(0, start, run.end)


def _merged(runs: Sequence[Part], smallest: int) -> list[Part]:
    """No part but the last is shorter than `smallest`: a short one takes bytes of the next, all of them when the rest
    of that would be too short."""
    merged: list[Part] = []
    for run in runs:
        last = merged[-1] if merged else None
        if last is None or last.size >= smallest:
            merged.append(run)
            continue
        lacking = smallest - last.size
        if run.copy_from is None or run.size - lacking < smallest:
            merged[-1] = replace(last, end=run.end, copy_from=None)
        else:
            merged[-1] = replace(last, end=last.end + lacking, copy_from=None)
            merged.append(Part(0, last.end + lacking, run.end, run.copy_from + lacking))
    return merged
