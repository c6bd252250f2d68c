"""A tarball's plan says where every byte belongs: whatever it is cut into gives what Python's tarfile reads."""

from __future__ import annotations

import io
import itertools
import random
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from oci.archive.entry import IMGPKG
from oci.digest import Digest, digest_of
from oci.export.tar_plan import MemberContent, TarPlan, cut, groups, lay_out

SIZES = st.lists(st.integers(0, 3000), min_size=1, max_size=12)
PART = st.integers(100, 2500)


def made(sizes: list[int], *, inline: int = 1) -> tuple[TarPlan, dict[Digest, bytes], dict[str, bytes]]:
    """A plan whose first members are known bytes and whose others are blobs; the blobs; and all members by name."""
    datas = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    contents, blobs, members = [], {}, {}
    for number, data in enumerate(datas):
        name = f"member-{number}" if number % 3 else f"{'long/' * 30}member-{number}"
        members[name] = data
        if number < inline:
            contents.append(MemberContent.of(name, data))
        else:
            blobs[digest_of(data)] = data
            contents.append(MemberContent(name, len(data), digest=digest_of(data)))
    return lay_out(IMGPKG, contents), blobs, members


def read(plan: TarPlan, blobs: dict[Digest, bytes], start: int, end: int) -> bytes:
    found = []
    at = start
    for piece in plan.pieces(start, end):
        assert piece.offset == at, "pieces follow each other without a gap"
        at += piece.length
        if not piece.digest:
            assert len(piece.data) == piece.length
            found.append(piece.data)
        else:
            found.append(blobs[piece.digest][piece.blob_offset : piece.blob_offset + piece.length])
    assert at == end
    return b"".join(found)


@given(SIZES, PART, st.integers(0, 3))
def test_the_pieces_of_all_parts_are_the_tar_that_tarfile_reads(sizes: list[int], size: int, inline: int) -> None:
    plan, blobs, members = made(sizes, inline=inline)
    parts = cut(plan, size=size, smallest=1, most=1 << 40)
    data = b"".join(read(plan, blobs, part.start, part.end) for part in parts)

    assert len(data) == plan.size
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        found = {one.name: archive.extractfile(one) for one in archive.getmembers()}
        assert {name: file.read() for name, file in found.items() if file} == members
        assert [one.offset_data for one in archive.getmembers()] == [member.data_offset for member in plan.members]
        assert {(one.mode, one.mtime, one.uid, one.uname) for one in archive.getmembers()} == {(0o644, 0, 0, "")}


@given(SIZES, st.integers(1, 4000), st.integers(1, 4000))
def test_any_stretch_is_the_same_bytes(sizes: list[int], one: int, other: int) -> None:
    plan, blobs, _ = made(sizes)
    whole = read(plan, blobs, 0, plan.size)
    start, end = sorted((min(one, plan.size), min(other, plan.size)))

    assert read(plan, blobs, start, end) == whole[start:end]


@given(SIZES, PART, st.integers(1, 600), st.sets(st.integers(0, 11)))
def test_parts_cover_everything_once_and_none_but_the_last_is_too_short(
    sizes: list[int], size: int, smallest: int, kept: set[int]
) -> None:
    plan, _, _ = made(sizes)
    base = {
        member.content.name: 10_000 + member.offset
        for number, member in enumerate(plan.members)
        if number in kept and member.content.digest
    }
    parts = cut(plan, size=max(size, smallest), smallest=smallest, most=1 << 40, base=base)

    assert [part.number for part in parts] == list(range(1, len(parts) + 1))
    assert parts[0].start == 0
    assert parts[-1].end == plan.size
    assert all(one.end == other.start for one, other in itertools.pairwise(parts))
    assert all(part.size >= smallest for part in parts[:-1])
    for part in parts:
        if part.copy_from is not None:
            names = {member.content.name for member in plan.between(part.start, part.end)}
            assert part.copy_from == part.start + 10_000
            assert names <= set(base)


@given(SIZES, st.integers(1, 400), st.integers(1, 5))
def test_groups_take_every_part_once_and_never_share_a_blob(sizes: list[int], size: int, count: int) -> None:
    plan, _, _ = made(sizes)
    parts = cut(plan, size=size, smallest=1, most=1 << 40)
    made_groups = groups(plan, parts, count)

    assert [number for group in made_groups for number in group] == [part.number for part in parts]
    assert len(made_groups) <= count
    by_number = {part.number: part for part in parts}
    owners: dict[int, int] = {}
    for number, group in enumerate(made_groups):
        for part in (by_number[one] for one in group):
            for member in plan.between(part.start, part.end):
                if member.content.digest and part.end > member.data_offset and part.start < member.data_end:
                    assert owners.setdefault(member.offset, number) == number


def test_the_fingerprint_tells_names_sizes_digests_and_texts_apart() -> None:
    digest = digest_of(b"blob")
    plans = [
        lay_out(IMGPKG, [MemberContent.of("manifest.json", b"[]"), MemberContent("blob", 4, digest=digest)]),
        lay_out(IMGPKG, [MemberContent.of("manifest.json", b"[1]"), MemberContent("blob", 4, digest=digest)]),
        lay_out(IMGPKG, [MemberContent.of("manifest.json", b"[]"), MemberContent("blub", 4, digest=digest)]),
        lay_out(IMGPKG, [MemberContent.of("manifest.json", b"[]"), MemberContent("blob", 5, digest=digest)]),
        lay_out(
            IMGPKG, [MemberContent.of("manifest.json", b"[]"), MemberContent("blob", 4, digest=digest_of(b"other"))]
        ),
    ]

    assert len({plan.fingerprint for plan in plans}) == len(plans)


def test_parts_grow_when_there_would_be_too_many() -> None:
    plan = lay_out(IMGPKG, [MemberContent("blob", 200 << 30, digest=digest_of(b"any"))])

    assert len(cut(plan, size=16 << 20)) <= 10_000
    assert len(cut(plan, size=16 << 20, most=1 << 40)) > 12_000


def test_a_member_of_8_gib_and_more_has_a_pax_header_that_tarfile_understands() -> None:
    size = (8 << 30) + 5
    plan = lay_out(IMGPKG, [MemberContent("big", size, digest=digest_of(b"any")), MemberContent.of("after", b"x")])
    head = b"".join(piece.data for piece in plan.pieces(0, plan.members[0].data_offset))
    with tarfile.open(fileobj=io.BytesIO(head)) as archive:
        member = archive.next()

    assert member is not None
    assert (member.size, member.offset_data) == (size, plan.members[0].data_offset)
    assert plan.members[1].offset % 512 == 0
