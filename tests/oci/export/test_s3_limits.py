"""Parts of archives so big that nobody writes them in a test: the plan alone must keep what S3 asks for."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from oci.archive.entry import IMGPKG
from oci.archive.options import SMALLEST
from oci.digest import Digest
from oci.export.tar_plan import MOST_PARTS, MemberContent, Part, TarPlan, cut, groups, lay_out

MIB, GIB, TIB = 1 << 20, 1 << 30, 1 << 40
BIGGEST_PART = 5 * GIB


def plan_of(sizes: Sequence[int]) -> TarPlan:
    blobs = [MemberContent(f"{n:064x}.tar.gz", size, digest=Digest(f"sha256:{n:064x}")) for n, size in enumerate(sizes)]
    return lay_out(IMGPKG, [MemberContent.of("manifest.json", b"[]"), *blobs])


def spread(count: int, total: int) -> list[int]:
    numbers = random.Random(count)
    return [numbers.randrange(1, 2 * total // count) for _ in range(count)]


def check(plan: TarPlan, parts: Sequence[Part]) -> None:
    assert len(parts) <= MOST_PARTS
    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == plan.size
    assert all(SMALLEST <= part.size <= BIGGEST_PART for part in parts[:-1])
    assert parts[-1].size <= BIGGEST_PART


@pytest.mark.parametrize(
    "sizes",
    [spread(5_000, 5 * TIB), [5 * TIB - 10 * MIB], spread(10_000, 900 * GIB), spread(3, 100 * MIB), [0], [1]],
    ids=["5 TiB in 5,000 blobs", "5 TiB in one blob", "900 GiB", "100 MiB", "an empty blob", "a byte"],
)
def test_every_archive_fits_into_one_upload(sizes: list[int]) -> None:
    plan = plan_of(sizes)
    parts = cut(plan)

    check(plan, parts)
    if plan.size > GIB:
        assert max(part.size for part in parts) < 1.5 * max(plan.size / MOST_PARTS, 16 * MIB)


def test_an_older_archive_never_makes_too_many_parts() -> None:
    """Of every six blobs one is new and one at another place: as many stretches as half of the blobs."""
    plan = plan_of(spread(21_000, 2 * TIB))
    base = {
        member.content.name: member.offset + (number % 6 == 3) * 512
        for number, member in enumerate(plan.members)
        if number % 6
    }
    parts = cut(plan, base=base)

    check(plan, parts)
    assert sum(part.size for part in parts if part.copy_from is not None) > plan.size / 4


def test_workers_share_a_big_archive_evenly() -> None:
    plan = plan_of(spread(5_000, 5 * TIB))
    parts = cut(plan)
    shares = groups(plan, parts, 16)

    assert [number for share in shares for number in share] == [part.number for part in parts]
    weights = [sum(parts[number - 1].size for number in share) for share in shares]
    assert len(weights) == 16
    assert max(weights) < 1.1 * plan.size / 16
