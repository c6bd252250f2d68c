from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from oci.archive.open import open_reader
from oci.archive.options import WHEN_REQUIRED, WHEN_SUPPORTED, S3Options
from oci.archive.s3 import S3
from oci.errors import Cancelled, CancelToken, Denied, NotFound, Refused, StoreError, Unauthorized, Unavailable
from oci.export.assembly import Writing
from oci.export.file_writer import FileWriter, open_writer
from oci.export.s3_writer import S3Writer
from oci.export.tar_plan import Part, groups
from oci.meter import Meter
from tests.servers.seaweedfs import BUCKET, SeaweedFS, name_of
from tests.support.tarballs import MIB, Tarball
from tests.support.waiting import until

SIZES = [7 * MIB, 3 * MIB, 100, 0, 12 * MIB + 5, 2 * MIB]


@pytest.fixture(scope="module")
def tarball() -> Tarball:
    return Tarball.of(1, SIZES)


def writer(store: SeaweedFS, location: str, **changes: object) -> S3Writer:
    made = open_writer(location, store.settings.with_(**changes))
    assert isinstance(made, S3Writer)
    return made


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_the_object_has_the_bytes_of_the_file(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, tmp_path: Path, concurrency: int
) -> None:
    report = tarball.write(writer(object_store, s3_location), concurrency=concurrency)
    tarball.write(FileWriter(str(tmp_path / "shop.tar")), concurrency=concurrency)

    assert object_store.get(s3_location) == tarball.data == (tmp_path / "shop.tar").read_bytes()
    assert report.sent == tarball.plan.size
    assert object_store.keys(s3_location) == [s3_location.partition(f"{BUCKET}/")[2]]
    assert object_store.uploads(s3_location) == []


def test_a_store_without_checksums_gets_md5(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    tarball.write(writer(object_store, s3_location, checksums=WHEN_REQUIRED))

    assert object_store.get(s3_location) == tarball.data


def test_what_is_asked_of_the_object_is_on_it(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    tags = {"team": "platform & co", "air gap": "yes"}
    made = writer(object_store, s3_location, tags=tags, storage_class="STANDARD_IA", encryption="AES256")
    tarball.write(made)

    head = object_store.head(s3_location)
    assert head is not None
    assert (head["StorageClass"], head["ServerSideEncryption"]) == ("STANDARD_IA", "AES256")
    assert head["ContentType"] == "application/x-tar"
    bucket, _, key = s3_location.removeprefix("s3://").partition("/")
    found = object_store.client.get_object_tagging(Bucket=bucket, Key=key)["TagSet"]
    assert {tag["Key"]: tag["Value"] for tag in found} == tags
    assert object_store.get(s3_location) == tarball.data


def test_nothing_is_seen_and_the_older_object_stays_until_the_end(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball
) -> None:
    older = Tarball.of(2, [MIB])
    older.write(writer(object_store, s3_location))
    made = writer(object_store, s3_location)
    parts = tarball.parts()
    done = made.begin(parts, tarball.plan.fingerprint, resume=False)
    Writing(tarball.plan, parts, made, tarball.places).run(done)

    assert object_store.get(s3_location) == older.data

    made.finish(parts)
    assert object_store.get(s3_location) == tarball.data


class _StopsAfter(S3Writer):
    """Breaks down once so many parts are stored."""

    left = 0

    def put(self, part: Part, data: bytearray) -> None:
        if self.left == 0:
            raise Cancelled
        self.left -= 1
        super().put(part, data)


def interrupted(store: SeaweedFS, location: str, tarball: Tarball, stored: int) -> None:
    broken = _StopsAfter(location, S3(store.settings, side="destination"))
    broken.left = stored
    with pytest.raises(Cancelled):
        tarball.write(broken, concurrency=1)


@pytest.mark.parametrize("checksums", [WHEN_SUPPORTED, WHEN_REQUIRED])
def test_a_run_that_resumes_sends_what_is_missing(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, checksums: str
) -> None:
    interrupted(object_store, s3_location, tarball, stored=2)

    report = tarball.write(writer(object_store, s3_location, checksums=checksums), resume=True)

    assert object_store.get(s3_location) == tarball.data
    first_two = sum(part.size for part in tarball.parts()[:2])
    assert (report.kept, report.sent) == (first_two, tarball.plan.size - first_two)
    assert object_store.uploads(s3_location) == []
    assert len(object_store.keys(s3_location)) == 1


def test_a_run_that_does_not_resume_leaves_the_other_upload_alone(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball
) -> None:
    interrupted(object_store, s3_location, tarball, stored=1)
    [left] = object_store.uploads(s3_location)

    report = tarball.write(writer(object_store, s3_location))

    assert (report.kept, report.sent) == (0, tarball.plan.size)
    assert object_store.uploads(s3_location) == [left]


def test_another_archive_does_not_go_on_with_what_was_begun(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball
) -> None:
    interrupted(object_store, s3_location, tarball, stored=1)
    other = Tarball.of(3, SIZES)

    report = other.write(writer(object_store, s3_location), resume=True)

    assert report.kept == 0
    assert object_store.get(s3_location) == other.data


def test_a_resume_after_the_upload_was_given_up_starts_anew(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball
) -> None:
    interrupted(object_store, s3_location, tarball, stored=1)
    [left] = object_store.uploads(s3_location)
    object_store.client.abort_multipart_upload(**name_of(s3_location), UploadId=left)

    report = tarball.write(writer(object_store, s3_location), resume=True)

    assert report.kept == 0
    assert object_store.get(s3_location) == tarball.data


def test_uploads_that_are_nobodys_are_removed(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    interrupted(object_store, s3_location, tarball, stored=1)
    [old] = object_store.uploads(s3_location)
    neighbour = f"{s3_location}.other"
    interrupted(object_store, neighbour, tarball, stored=1)
    until("both are older than a second", lambda: object_store.age_of_youngest(neighbour) > 1)
    other = Tarball.of(3, [MIB])

    other.write(writer(object_store, s3_location, abandoned_after=60.0))
    assert object_store.uploads(s3_location) == [old]

    other.write(writer(object_store, s3_location, abandoned_after=1.0))
    assert object_store.uploads(s3_location) == []
    assert len(object_store.uploads(neighbour)) == 1


def test_two_runs_of_the_same_archive_both_succeed(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    first, second = writer(object_store, s3_location), writer(object_store, s3_location)
    parts = tarball.parts()
    for one in (first, second):
        done = one.begin(parts, tarball.plan.fingerprint, resume=False)
        Writing(tarball.plan, parts, one, tarball.places).run(done)

    first.finish(parts)
    second.finish(parts)

    assert object_store.get(s3_location) == tarball.data
    assert object_store.uploads(s3_location) == []


@pytest.mark.parametrize("older", [False, True])
def test_of_two_runs_of_different_archives_the_second_does_not_clobber_the_first(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, older: bool
) -> None:
    if older:
        Tarball.of(2, [MIB]).write(writer(object_store, s3_location))
    slow, parts = writer(object_store, s3_location), tarball.parts()
    done = slow.begin(parts, tarball.plan.fingerprint, resume=False)
    Writing(tarball.plan, parts, slow, tarball.places).run(done)
    fast = Tarball.of(3, [MIB])
    fast.write(writer(object_store, s3_location))

    with pytest.raises(Refused, match="another run has written this object meanwhile") as raised:
        slow.finish(parts)

    assert raised.value.code == "PreconditionFailed"
    assert object_store.get(s3_location) == fast.data


@pytest.mark.parametrize("older", [False, True])
def test_the_store_is_asked_to_complete_only_what_nobody_has_changed(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, older: bool
) -> None:
    """What happens between our own look and the end of the upload is for the store to see."""

    class Unaware(S3Writer):
        def _check_before(self) -> None:
            return

    if older:
        Tarball.of(2, [MIB]).write(writer(object_store, s3_location))
    slow, parts = Unaware(s3_location, S3(object_store.settings, side="destination")), tarball.parts()
    done = slow.begin(parts, tarball.plan.fingerprint, resume=False)
    Writing(tarball.plan, parts, slow, tarball.places).run(done)
    fast = Tarball.of(3, [MIB])
    fast.write(writer(object_store, s3_location))

    with pytest.raises(Refused) as raised:
        slow.finish(parts)

    assert raised.value.code == "PreconditionFailed"
    assert object_store.get(s3_location) == fast.data


def test_two_processes_write_one_object(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    parts = tarball.parts()
    parent = writer(object_store, s3_location)
    parent.begin(parts, tarball.plan.fingerprint, resume=False)
    shares = groups(tarball.plan, parts, 2)
    assert len(shares) == 2
    spawn = multiprocessing.get_context("spawn")

    with ProcessPoolExecutor(2, mp_context=spawn) as processes:
        sent = list(
            processes.map(
                write_share, [object_store.settings] * 2, [s3_location] * 2, [parent.ticket] * 2, [tarball] * 2, shares
            )
        )
    last = writer(object_store, s3_location)
    last.join(parent.ticket, parts)
    last.finish(parts)

    assert object_store.get(s3_location) == tarball.data
    assert len(object_store.keys(s3_location)) == 1
    assert sum(sent) == tarball.plan.size
    assert all(sent)


def write_share(settings: S3Options, location: str, ticket: str, tarball: Tarball, numbers: tuple[int, ...]) -> int:
    """What a worker does: makes the plan, joins the upload, writes its parts."""
    plan, parts = tarball.plan, tarball.parts()
    mine = S3Writer(location, S3(settings, side="destination"))
    return Writing(plan, parts, mine, tarball.places).run(mine.join(ticket, parts), numbers).sent


def test_joining_what_is_complete_says_so(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    first = writer(object_store, s3_location)
    tarball.write(first)

    with pytest.raises(NotFound, match="the upload is no more"):
        writer(object_store, s3_location).join(first.ticket, tarball.parts())


def test_a_newer_archive_takes_what_is_unchanged_from_the_older_one(object_store: SeaweedFS, s3_location: str) -> None:
    older = Tarball.of(6, [6 * MIB] * 10)
    older.write(writer(object_store, f"{s3_location}.old"))
    blobs = dict(list(older.blobs.items())[1:]) | Tarball.of(7, [6 * MIB]).blobs
    newer = Tarball(blobs)
    base = open_reader(f"{s3_location}.old", object_store.settings, side="source", cancel=CancelToken())

    report = newer.write(writer(object_store, s3_location), base=base, base_plan=older.plan)

    assert object_store.get(s3_location) == newer.data
    assert report.copied + report.sent == newer.plan.size
    assert report.sent <= 6 * MIB + 16 * MIB
    assert newer.bytes_read <= 6 * MIB + 16 * MIB


def test_an_older_archive_that_nobody_proved_is_not_copied_from(object_store: SeaweedFS, s3_location: str) -> None:
    older = Tarball.of(6, [6 * MIB] * 2)
    object_store.put(f"{s3_location}.old", older.data)
    base = open_reader(f"{s3_location}.old", object_store.settings, side="source", cancel=CancelToken())

    report = older.write(writer(object_store, s3_location), base=base, base_plan=older.plan)

    assert report.copied == 0
    assert object_store.get(s3_location) == older.data


@pytest.mark.parametrize(
    ("changes", "location", "kind", "said"),
    [
        ({}, "s3://no-such-bucket/a.tar", NotFound, "make the bucket first"),
        ({"access_key": "stranger"}, "s3://archives/a.tar", (Unauthorized, Denied), "check the"),
        ({"secret_key": "wrong"}, "s3://archives/a.tar", (Unauthorized, Denied), "check the"),
        ({"endpoint": "http://127.0.0.1:9", "tries": 1}, "s3://archives/a.tar", Unavailable, "check the endpoint"),
        ({"profile": "nobody", "access_key": "", "secret_key": ""}, "s3://archives/a.tar", Unauthorized, "profile"),
    ],
)
def test_what_is_wrong_is_said(
    object_store: SeaweedFS, tarball: Tarball, changes: dict[str, object], location: str, kind: type, said: str
) -> None:
    with pytest.raises(StoreError, match=said) as raised:
        tarball.write(writer(object_store, location, **changes))

    assert isinstance(raised.value, kind)
    assert raised.value.side == "destination"
    assert "the-secret-key" not in str(raised.value)


def test_requests_and_identity_are_counted(object_store: SeaweedFS, s3_location: str, tarball: Tarball) -> None:
    meter = Meter()
    host = object_store.endpoint.removeprefix("http://")
    tarball.write(S3Writer(s3_location, S3(object_store.settings, side="destination", meter=meter)))

    receipt = meter.receipt()
    counted = receipt.requests[host]
    assert counted["PUT part"] == len(tarball.parts())
    assert (counted["POST upload"], counted["GET parts"], counted["GET uploads"]) == (2, 1, 1)
    assert receipt.retries == 0
    assert receipt.identities == {f"destination {host}": "access key tests (explicit)"}


def test_nothing_is_left_beside_the_archive_in_a_bucket_that_keeps_versions(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball
) -> None:
    bucket = "kept.versions"  # with dots, too
    object_store.client.create_bucket(Bucket=bucket)
    object_store.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    location = s3_location.replace(BUCKET, bucket)
    parts = tarball.parts()
    begun = writer(object_store, location)
    begun.begin(parts, tarball.plan.fingerprint, resume=False)

    tarball.write(writer(object_store, location), resume=True)
    tarball.write(writer(object_store, location))

    listed = object_store.client.list_object_versions(Bucket=bucket, Prefix=name_of(location)["Key"])
    assert {entry["Key"] for entry in listed["Versions"]} == {name_of(location)["Key"]}
    assert len(listed["Versions"]) == 2
    assert "DeleteMarkers" not in listed


@pytest.mark.parametrize("key", ["a b/x y.tar", "ä/…/ü.tar", "p%2Fq%20.tar", "+&?#=;,:@~.tar", "pipe|'quote\".tar"])
def test_a_key_may_have_any_characters(
    object_store: SeaweedFS, s3_location: str, tarball: Tarball, tmp_path: Path, key: str
) -> None:
    location = f"{s3_location}/{key}"
    tarball.write(writer(object_store, location))

    with closing(open_reader(location, object_store.settings, side="", cancel=CancelToken())) as base:
        report = tarball.write(writer(object_store, f"{location}2"), base=base, base_plan=tarball.plan)

    assert report.copied > 0
    assert object_store.get(location) == object_store.get(f"{location}2") == tarball.data
