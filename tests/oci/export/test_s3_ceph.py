"""Archives in Ceph 16.2, which knows no checksums but MD5, no conditions at the end of an upload, and over TLS refuses
what boto3 sends by itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from oci.archive.open import open_reader
from oci.archive.options import WHEN_REQUIRED, WHEN_SUPPORTED
from oci.archive.s3 import S3
from oci.errors import Cancelled, CancelToken, Denied, NotFound, Refused, StoreError
from oci.export import assembly
from oci.export.assembly import Writing
from oci.export.file_writer import open_writer
from oci.export.s3_writer import S3Writer
from oci.export.tar_plan import Part
from tests.servers.ceph_rgw import CephGateway
from tests.servers.certificates import make_certificates
from tests.servers.seaweedfs import BUCKET, ObjectStore
from tests.support.tarballs import MIB, Tarball

pytestmark = pytest.mark.optional

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["http", "https"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephGateway]:
    folder = tmp_path_factory.mktemp("ceph")
    certificates = make_certificates(folder / "tls") if request.param == "https" else None
    with CephGateway(folder, certificates) as server:
        yield server


@pytest.fixture
def location() -> str:
    return f"s3://{BUCKET}/test{next(_numbers)}/shop.tar"


@pytest.fixture(scope="module")
def tarball() -> Tarball:
    return Tarball.of(1, [7 * MIB, 100, 8 * MIB])


def writer(store: ObjectStore, location: str, **changes: object) -> S3Writer:
    return S3Writer(location, S3(store.settings.with_(**changes), side="destination"))


@pytest.mark.parametrize("checksums", [WHEN_SUPPORTED, WHEN_REQUIRED])
def test_an_archive_is_written_and_read(store: CephGateway, location: str, tarball: Tarball, checksums: str) -> None:
    tarball.write(writer(store, location, checksums=checksums))

    assert store.get(location) == tarball.data
    reader = open_reader(location, store.settings, side="source", cancel=CancelToken())
    assert b"".join(reader.read(1000, 3 * MIB)) == tarball.data[1000 : 1000 + 3 * MIB]
    assert reader.fingerprint == tarball.plan.fingerprint
    assert store.uploads(location) == []
    assert len(store.keys(location)) == 1


@pytest.mark.parametrize("checksums", [WHEN_SUPPORTED, WHEN_REQUIRED])
def test_parts_that_are_not_held_are_read_to_be_proven_and_to_be_sent(
    store: CephGateway, location: str, checksums: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "BUFFERED", MIB)
    tarball = Tarball.of(2, [11 * MIB])

    tarball.write(writer(store, location, checksums=checksums))

    assert store.get(location) == tarball.data
    signed = store.endpoint.startswith("http://")
    assert tarball.bytes_read == 11 * MIB * (3 if signed else 2)


class _StopsAfter(S3Writer):
    left = 1

    def put(self, part: Part, data: bytearray) -> None:
        if self.left == 0:
            raise Cancelled
        self.left -= 1
        super().put(part, data)


def test_a_run_that_resumes_sends_what_is_missing(store: CephGateway, location: str, tarball: Tarball) -> None:
    with pytest.raises(Cancelled):
        tarball.write(_StopsAfter(location, S3(store.settings, side="destination")), concurrency=1)
    assert store.head(location) is None

    report = tarball.write(writer(store, location), resume=True)

    assert store.get(location) == tarball.data
    assert report.kept == tarball.parts()[0].size
    assert report.kept + report.sent == tarball.plan.size


def test_a_resume_after_the_upload_was_given_up_starts_anew(
    store: CephGateway, location: str, tarball: Tarball
) -> None:
    with pytest.raises(Cancelled):
        tarball.write(_StopsAfter(location, S3(store.settings, side="destination")), concurrency=1)
    [left] = store.uploads(location)
    bucket, _, key = location.removeprefix("s3://").partition("/")
    store.client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=left)

    assert tarball.write(writer(store, location), resume=True).kept == 0
    assert store.get(location) == tarball.data


def test_of_two_runs_of_different_archives_the_second_does_not_clobber_the_first(
    store: CephGateway, location: str, tarball: Tarball
) -> None:
    slow, parts = writer(store, location), tarball.parts()
    done = slow.begin(parts, tarball.plan.fingerprint, resume=False)
    Writing(tarball.plan, parts, slow, tarball.places).run(done)
    fast = Tarball.of(3, [MIB])
    fast.write(writer(store, location))

    with pytest.raises(Refused, match="another run has written this object meanwhile"):
        slow.finish(parts)

    assert store.get(location) == fast.data


def test_a_newer_archive_takes_what_is_unchanged_from_the_older_one(store: CephGateway, location: str) -> None:
    older = Tarball.of(6, [6 * MIB] * 6)
    older.write(writer(store, f"{location}.old"))
    newer = Tarball(dict(list(older.blobs.items())[1:]) | Tarball.of(7, [6 * MIB]).blobs)
    base = open_reader(f"{location}.old", store.settings, side="source", cancel=CancelToken())

    report = newer.write(writer(store, location), base=base, base_plan=older.plan)

    assert store.get(location) == newer.data
    assert report.sent <= 6 * MIB + 16 * MIB


@pytest.mark.parametrize(
    ("place", "changes", "kind"),
    [
        ("s3://no-such-bucket/a.tar", {}, NotFound),
        (f"s3://{BUCKET}/a.tar", {"secret_key": "wrong"}, Denied),
        (f"s3://{BUCKET}/a.tar", {"access_key": "stranger"}, StoreError),
    ],
)
def test_what_is_wrong_is_said(
    store: CephGateway, tarball: Tarball, place: str, changes: dict[str, object], kind: type[Exception]
) -> None:
    with pytest.raises(kind) as raised:
        tarball.write(writer(store, place, **changes))

    assert getattr(raised.value, "hint", "")


def test_a_certificate_that_nobody_vouches_for_is_refused(store: CephGateway, location: str, tarball: Tarball) -> None:
    if store.endpoint.startswith("http://"):
        settings = store.settings.with_(endpoint=store.endpoint.replace("http://", "https://"), tries=1)
    else:
        settings = store.settings.with_(ca_file="", tries=1)

    with pytest.raises(StoreError, match="name the authority"):
        tarball.write(open_writer(location, settings))
