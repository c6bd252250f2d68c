"""Parts that are too big to be held: they pass through, to a file and to an object store."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from oci.archive.options import WHEN_REQUIRED, WHEN_SUPPORTED, S3Options
from oci.archive.s3 import S3
from oci.digest import Chunk, Digest
from oci.errors import Cancelled, IntegrityError, StoreError
from oci.export import assembly
from oci.export.assembly import OpenBlob, Writing
from oci.export.file_writer import ByteWriter, FileWriter
from oci.export.s3_writer import S3Writer
from oci.export.tar_plan import Part, ReadPart, StoredPart, cut
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.seaweedfs import SeaweedFS
from tests.support.tarballs import MIB, Tarball

SIZES = [7 * MIB, 3 * MIB, 100, 0, 12 * MIB + 5, 2 * MIB]


@pytest.fixture(autouse=True)
def _nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assembly, "BUFFERED", MIB)


@pytest.fixture(scope="module")
def tarball() -> Tarball:
    return Tarball.of(1, SIZES)


def to_s3(settings: S3Options, location: str) -> S3Writer:
    return S3Writer(location, S3(settings, side="destination"))


@dataclass
class Unsteady(Tarball):
    """Spoils the read of a blob's bytes that comes `spoilt`th, counted from 1; 0 spoils none."""

    spoilt: int = 0
    breaks: bool = False
    """Breaks off in the middle instead of giving wrong bytes."""

    def places(self, digest: Digest) -> Sequence[OpenBlob]:
        [read] = super().places(digest)

        def unsteady(offset: int, length: int | None) -> Iterator[Chunk]:
            for number, chunk in enumerate(read(offset, length)):
                if len(self.reads) != self.spoilt:
                    yield chunk
                elif not self.breaks:
                    yield bytes(len(chunk))
                elif number == 1:
                    raise StoreError("the source went away", side="source")
                else:
                    yield chunk

        return [unsteady, read] if self.breaks else [unsteady]


def unsteady(spoilt: int, *, breaks: bool = False) -> Unsteady:
    return Unsteady(Tarball.of(1, [20 * MIB]).blobs, spoilt=spoilt, breaks=breaks)


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("checksums", [WHEN_SUPPORTED, WHEN_REQUIRED])
def test_the_object_and_the_file_have_the_same_bytes(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, tmp_path: Path, checksums: str, concurrency: int
) -> None:
    report = tarball.write(
        to_s3(object_store.settings.with_(checksums=checksums), s3_location), concurrency=concurrency
    )
    tarball.write(FileWriter(str(tmp_path / "shop.tar")), concurrency=concurrency)

    assert object_store.get(s3_location) == tarball.data == (tmp_path / "shop.tar").read_bytes()
    assert report.sent == tarball.plan.size


def test_memory_does_not_grow_with_the_parts(object_store: SeaweedFS, s3_location: str, tmp_path: Path) -> None:
    tarball = Tarball.of(2, [48 * MIB])
    parts = cut(tarball.plan, size=24 * MIB)
    writers: list[ByteWriter] = [to_s3(object_store.settings, s3_location), FileWriter(str(tmp_path / "shop.tar"))]
    peaks = []
    for writer in writers:
        writing = Writing(tarball.plan, parts, writer, tarball.places)
        done = writer.begin(parts, tarball.plan.fingerprint, resume=False)
        tracemalloc.start()
        writing.run(done)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        writer.finish(parts)

    assert object_store.get(s3_location) == tarball.data
    assert max(peaks) < 8 * MIB


def test_bytes_that_are_wrong_at_first_are_never_sent(object_store: SeaweedFS, s3_location: str) -> None:
    with FaultProxy(object_store.port) as proxy:
        spoilt = unsteady(1)
        spoilt.write(to_s3(object_store.settings.with_(endpoint=proxy.url), s3_location), concurrency=1)

        assert object_store.get(s3_location) == spoilt.data
        assert proxy.count("PUT", r"partNumber=4\b") == 1


@pytest.mark.parametrize("checksums", [WHEN_SUPPORTED, WHEN_REQUIRED])
def test_bytes_that_are_wrong_when_they_are_sent_are_noticed(
    object_store: SeaweedFS, s3_location: str, checksums: str
) -> None:
    """Read to be proven, to be signed, and to be sent."""
    for turn in (2, 3):
        spoilt = unsteady(turn)
        spoilt.write(to_s3(object_store.settings.with_(checksums=checksums), s3_location), concurrency=1)

        assert object_store.get(s3_location) == spoilt.data
        assert spoilt.reads[:3] == [spoilt.reads[0]] * 3


def test_a_blob_that_stays_wrong_is_refused(object_store: SeaweedFS, s3_location: str, tmp_path: Path) -> None:
    good = Tarball.of(1, SIZES)
    [first, *_] = good.blobs
    wrong = Tarball({**good.blobs, first: bytes(len(good.blobs[first]))})

    for writer in (to_s3(object_store.settings, s3_location), FileWriter(str(tmp_path / "shop.tar"))):
        with pytest.raises(IntegrityError, match="expected sha256:"):
            wrong.write(writer)

    assert object_store.head(s3_location) is None
    assert not (tmp_path / "shop.tar").exists()


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_a_source_that_breaks_off_is_continued_at_the_next(
    object_store: SeaweedFS, s3_location: str, turn: int
) -> None:
    broken = unsteady(turn, breaks=True)

    report = broken.write(to_s3(object_store.settings, s3_location), concurrency=1)

    assert object_store.get(s3_location) == broken.data
    assert report.sent == broken.plan.size
    assert broken.reads[turn][1] == broken.reads[turn - 1][1] + MIB


def test_a_source_that_goes_away_while_a_part_is_sent_is_what_the_error_says(
    object_store: SeaweedFS, s3_location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = unsteady(3, breaks=True)
    both = Unsteady.places
    monkeypatch.setattr(Unsteady, "places", lambda self, digest: both(self, digest)[:1])

    with pytest.raises(StoreError, match="the source went away") as caught:
        broken.write(to_s3(object_store.settings, s3_location), concurrency=1)

    assert caught.value.side == "source"
    assert len(broken.reads) == 3


FAULTS = {
    "500": Fault(method="PUT", path=r"partNumber=2\b", last=1, status=500, body=b""),
    "reset": Fault(method="PUT", path=r"partNumber=2\b", last=1, cut_upload_after=100_000),
    "other bytes were stored": Fault(
        method="PUT",
        path=r"partNumber=2\b",
        last=1,
        replace_headers={"ETag": f'"{"0" * 32}"', "x-amz-checksum-crc32": ""},
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_part_is_sent_again_by_reading_it_again(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, fault: Fault
) -> None:
    with FaultProxy(object_store.port) as proxy:
        proxy.rules.append(replace(fault, matched=0))
        tarball.write(to_s3(object_store.settings.with_(endpoint=proxy.url), s3_location))

        assert proxy.rules[0].matched >= 1
    assert object_store.get(s3_location) == tarball.data


class _StopsAfterTwo(S3Writer):
    left = 2

    def put_stream(self, part: Part, read: ReadPart, known: StoredPart | None) -> bool:
        if not self.left:
            raise Cancelled
        self.left -= 1
        return super().put_stream(part, read, known)


@pytest.mark.parametrize("checksums", [WHEN_SUPPORTED, WHEN_REQUIRED])
def test_a_run_that_resumes_proves_what_is_stored_and_sends_what_is_missing(
    object_store: SeaweedFS, s3_location: str, checksums: str
) -> None:
    settings = object_store.settings.with_(checksums=checksums)
    tarball = Tarball.of(3, [20 * MIB])
    with pytest.raises(Cancelled):
        tarball.write(_StopsAfterTwo(s3_location, S3(settings, side="destination")), concurrency=1)

    report = tarball.write(to_s3(settings, s3_location), resume=True)

    first_two = sum(part.size for part in tarball.parts()[:2])
    assert object_store.get(s3_location) == tarball.data
    assert (report.kept, report.sent) == (first_two, tarball.plan.size - first_two)
