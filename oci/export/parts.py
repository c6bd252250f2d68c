"""Cutting a tarball into parts: units that are written in any order, each alone.

A part begins and ends between two members wherever it can; only a blob bigger than a part is cut. What an older archive
has at one stretch becomes a part that is copied from there.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec import Struct

from oci.digest import Chunk
from oci.errors import InvalidInput
from oci.export.options import DEFAULT_SIZE, SMALLEST
from oci.export.tar_plan import TarPlan

ReadPart = Callable[[], Iterator[Chunk]]
"""Gives all the bytes of a part, anew every time. Those it gives first are proven as they pass."""


class StoredPart(Struct, frozen=True, kw_only=True):
    """What a writer knows of a part that is in place: `crc32` where it keeps that, `md5` in hexadecimal likewise."""

    crc32: int | None = None
    md5: str = ""

    def is_of(self, crc32: int, md5: Callable[[], str]) -> bool:
        """Says whether bytes with these checksums are the ones that are in place."""
        return self.crc32 == crc32 if self.crc32 is not None else bool(self.md5) and self.md5 == md5()


MOST_PARTS = 10_000
MOST_PARTS_OF_A_FILE = 100_000
"""Beyond it parts get bigger: those of a file are written as they are read, whatever their size."""

_COPIED = 4
"""How many times longer than another a part may be that is copied from an older archive."""


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


class _Run(Struct):
    """A stretch in the making."""

    start: int
    end: int
    copy_from: int | None = None

    @property
    def size(self) -> int:
        return self.end - self.start


def cut(
    plan: TarPlan,
    *,
    size: int = DEFAULT_SIZE,
    smallest: int = SMALLEST,
    most: int | None = MOST_PARTS,
    base: Mapping[str, int] | None = None,
) -> tuple[Part, ...]:
    """Parts of about `size` bytes, more when there would be more than `most` of them. `base` says where an older
    archive has members, by name: the offset of their header. Raises InvalidInput for what can't be cut so."""
    size = max(size, -(-plan.size // most)) if most else size
    copied = smallest
    while True:
        runs = _runs(plan, base or {}, copied)
        parts = [part for run in runs for part in _cut_run(plan, run, size, smallest)]
        merged = _merged(parts, smallest)
        if most is None or len(merged) <= most:
            return tuple(Part(number, run.start, run.end, run.copy_from) for number, run in enumerate(merged, 1))
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


def _runs(plan: TarPlan, base: Mapping[str, int], shortest: int) -> list[_Run]:
    """Stretches that are to be copied, and those between them that are to be written. A copied one has the members of
    the older archive one behind the other, and `shortest` bytes or more."""
    runs: list[_Run] = []
    for member in plan.members:
        where = base.get(member.content.name) if member.content.digest else None
        last = runs[-1] if runs else None
        if last is not None and _goes_on(last, where):
            last.end = member.end
        else:
            runs.append(_Run(member.offset, member.end, where))
    end = runs[-1] if runs else None
    if end is None or end.copy_from is not None:
        runs.append(_Run(end.end if end else 0, plan.size))
    else:
        end.end = plan.size
    return _joined([_Run(run.start, run.end, run.copy_from if run.size >= shortest else None) for run in runs])


def _goes_on(run: _Run, where: int | None) -> bool:
    if run.copy_from is None or where is None:
        return run.copy_from is None and where is None
    return run.copy_from + run.size == where


def _joined(runs: Sequence[_Run]) -> list[_Run]:
    """Neighbours that are both written are one."""
    joined: list[_Run] = []
    for run in runs:
        if joined and joined[-1].copy_from is None and run.copy_from is None:
            joined[-1].end = run.end
        else:
            joined.append(run)
    return joined


def _cut_run(plan: TarPlan, run: _Run, size: int, smallest: int) -> Iterator[_Run]:
    if run.copy_from is not None:
        yield from _even(run, _COPIED * size)
        return
    first = bisect.bisect_right(plan.members, run.start, key=lambda member: member.end)
    last = bisect.bisect_left(plan.members, run.end, key=lambda member: member.end)
    edges = [member.end for member in plan.members[first:last]] + [run.end]
    start = at = run.start
    for edge in edges:
        if at - start >= smallest and edge - start > size:
            yield _Run(start, at)
            start = at
        while edge - start > size + smallest:
            yield _Run(start, start + size)
            start += size
        if edge - start >= size:
            yield _Run(start, edge)
            start = edge
        at = edge
    if start < run.end:
        yield _Run(start, run.end)


def _even(run: _Run, longest: int) -> Iterator[_Run]:
    """Pieces of the same size, so that none is too short."""
    count = -(-run.size // longest)
    for number in range(count):
        low, high = run.size * number // count, run.size * (number + 1) // count
        yield _Run(run.start + low, run.start + high, (run.copy_from or 0) + low)


def _merged(runs: Sequence[_Run], smallest: int) -> list[_Run]:
    """No part but the last is shorter than `smallest`: a short one takes bytes of the next, all of them when the rest
    of that would be too short."""
    merged: list[_Run] = []
    for run in runs:
        last = merged[-1] if merged else None
        if last is None or last.size >= smallest:
            merged.append(_Run(run.start, run.end, run.copy_from))
            continue
        lacking = smallest - last.size
        last.copy_from = None
        if run.copy_from is None or run.size - lacking < smallest:
            last.end = run.end
        else:
            last.end += lacking
            merged.append(_Run(last.end, run.end, run.copy_from + lacking))
    return merged
