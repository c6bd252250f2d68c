"""What real S3 does once in a million requests, made to happen by a proxy in front of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from oci.archive.s3 import S3, S3Object
from oci.errors import Cancelled, CancelToken, Denied, IntegrityError, RateLimited, Refused, TransshipError, Unavailable
from oci.export.s3_writer import S3Writer
from oci.meter import Meter
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.seaweedfs import SeaweedFS
from tests.support.tarballs import MIB, Tarball
from tests.support.waiting import until

PART = r"partNumber=2\b"
COMPLETE = r"\?uploadId="


@pytest.fixture(scope="module")
def tarball() -> Tarball:
    return Tarball.of(1, [7 * MIB, 100, 8 * MIB])


@pytest.fixture
def proxy(object_store: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(object_store.port) as front:
        yield front


PATIENT, HURRIED = 30.0, 2.0
"""Seconds without an answer: an honest store never takes as long, and a fault that never answers is given up sooner."""


def writer(
    store: SeaweedFS, proxy: FaultProxy, location: str, meter: Meter | None = None, *, timeout: float = PATIENT
) -> S3Writer:
    settings = store.settings.with_(endpoint=proxy.url, timeout=timeout, tries=2 if timeout == PATIENT else 4)
    return S3Writer(location, S3(settings, side="destination", meter=meter))


def _timeout(fault: Fault) -> float:
    return HURRIED if fault.delay else PATIENT


def xml(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>words of the store</Message></Error>".encode()


ONCE = {
    "500": Fault(method="PUT", path=PART, last=1, status=500, body=xml("InternalError")),
    "503 slow down": Fault(method="PUT", path=PART, last=1, status=503, body=xml("SlowDown")),
    "the connection is reset while a part is sent": Fault(method="PUT", path=PART, last=1, cut_upload_after=100_000),
    "no answer at all": Fault(method="PUT", path=PART, last=1, delay=600.0),
    "the answer about a part is lost": Fault(method="PUT", path=PART, last=1, reset_after=0),
    "other bytes were stored": Fault(
        method="PUT", path=PART, last=1, replace_headers={"ETag": f'"{"0" * 32}"', "x-amz-checksum-crc32": ""}
    ),
    "the answer about completion is lost": Fault(method="POST", path=COMPLETE, last=1, reset_after=1),
    "conditions aren't known": Fault(method="POST", path=COMPLETE, last=1, status=501, body=xml("NotImplemented")),
}


@pytest.mark.parametrize("fault", ONCE.values(), ids=ONCE.keys())
def test_what_passes_is_lived_through(
    object_store: SeaweedFS, proxy: FaultProxy, s3_location: str, tarball: Tarball, fault: Fault
) -> None:
    proxy.rules.append(replace(fault, matched=0))

    tarball.write(writer(object_store, proxy, s3_location, timeout=_timeout(fault)))

    assert object_store.get(s3_location) == tarball.data
    assert object_store.uploads(s3_location) == []
    assert proxy.rules[0].matched >= 1


ALWAYS: dict[str, tuple[Fault, type[TransshipError], str]] = {
    "500": (
        Fault(method="PUT", path=PART, status=500, body=xml("InternalError")),
        Unavailable,
        "storing part 2: words of the store (hint: run it again; what is stored stays)",
    ),
    "slow down": (Fault(method="PUT", path=PART, status=503, body=xml("SlowDown")), RateLimited, "lower the conc"),
    "no answer": (Fault(method="PUT", path=PART, delay=600.0), Unavailable, "check the endpoint"),
    "other bytes": (
        Fault(method="PUT", path=PART, replace_headers={"ETag": f'"{"0" * 32}"', "x-amz-checksum-crc32": ""}),
        IntegrityError,
        "the store has other bytes of part 2 than were sent",
    ),
    "no length": (
        Fault(method="PUT", path=PART, status=411, body=xml("MissingContentLength")),
        Refused,
        "--s3-checksums when_required",
    ),
    "a header isn't known": (
        Fault(method="POST", path="uploads", status=501, body=xml("NotImplemented")),
        Refused,
        "--s3-checksums when_required",
    ),
    "not allowed": (Fault(method="PUT", path=PART, status=403, body=xml("AccessDenied")), Denied, "what this identity"),
}


@pytest.mark.parametrize(("fault", "kind", "said"), ALWAYS.values(), ids=ALWAYS.keys())
def test_what_stays_is_told_and_leaves_the_older_object(
    object_store: SeaweedFS,
    proxy: FaultProxy,
    s3_location: str,
    tarball: Tarball,
    fault: Fault,
    kind: type[TransshipError],
    said: str,
) -> None:
    older = Tarball.of(2, [MIB])
    older.write(writer(object_store, proxy, s3_location))
    proxy.rules.append(replace(fault, matched=0))

    with pytest.raises(kind) as raised:
        tarball.write(writer(object_store, proxy, s3_location, timeout=_timeout(fault)))

    assert said in str(raised.value)
    assert "?" not in str(raised.value)
    assert object_store.get(s3_location) == older.data

    proxy.rules.clear()
    report = tarball.write(writer(object_store, proxy, s3_location), resume=True)
    assert object_store.get(s3_location) == tarball.data
    assert report.kept + report.sent == tarball.plan.size


def test_requests_that_are_sent_again_are_counted(
    object_store: SeaweedFS, proxy: FaultProxy, s3_location: str, tarball: Tarball
) -> None:
    proxy.rules.append(Fault(method="PUT", path=PART, last=1, status=500, body=xml("InternalError")))
    meter = Meter()

    tarball.write(writer(object_store, proxy, s3_location, meter))

    receipt = meter.receipt()
    assert receipt.retries == 1
    assert receipt.requests[proxy.host]["PUT part"] == len(tarball.parts()) + 1


DENIED = {
    "to ask for what isn't there": Fault(method="HEAD", last=2, status=403),
    "to ask for anything": Fault(method="HEAD", status=403),
    "to list the parts of an upload": Fault(method="GET", path="uploadId=", status=403, body=xml("AccessDenied")),
    "to list uploads": Fault(method="GET", path=r"\?uploads", status=403, body=xml("AccessDenied")),
    "to write beside the archive": Fault(method="PUT", path="transship-", status=403, body=xml("AccessDenied")),
    "to read what is beside it": Fault(method="GET", path="transship-", status=403, body=xml("AccessDenied")),
    "to delete": Fault(method="DELETE", status=403, body=xml("AccessDenied")),
}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("fault", DENIED.values(), ids=DENIED.keys())
def test_an_identity_that_may_only_write_writes(
    object_store: SeaweedFS, proxy: FaultProxy, s3_location: str, tarball: Tarball, fault: Fault, resume: bool
) -> None:
    """S3 says 403 about what isn't there to whoever may not list, and has a permission for each of these."""
    proxy.rules.append(replace(fault, matched=0))

    tarball.write(writer(object_store, proxy, s3_location), resume=resume)

    assert object_store.get(s3_location) == tarball.data


def test_what_may_not_be_looked_at_is_not_replaced(
    object_store: SeaweedFS, proxy: FaultProxy, s3_location: str, tarball: Tarball
) -> None:
    other = Tarball.of(2, [7 * MIB])
    other.write(writer(object_store, proxy, s3_location))
    proxy.rules.append(Fault(method="HEAD", status=403))

    with pytest.raises(Refused):
        tarball.write(writer(object_store, proxy, s3_location))

    assert object_store.get(s3_location) == other.data


@pytest.mark.parametrize("held", ["PUT", "POST", "GET"])
def test_a_thread_that_waits_for_the_store_is_woken_when_the_run_is_cancelled(
    object_store: SeaweedFS, s3_location: str, held: str
) -> None:
    token = CancelToken()
    with FaultProxy(object_store.port, Fault(method=held, delay=600.0)) as proxy:
        settings = object_store.settings.with_(endpoint=proxy.url)
        client = S3(settings, side="destination", cancel=token)
        calls = {
            "PUT": lambda: S3Object(s3_location, client).ask("writing", "put_object", Body=b"x" * 100_000),
            "POST": lambda: S3Object(s3_location, client).ask("beginning", "create_multipart_upload"),
            "GET": lambda: S3Object(s3_location, client).ask("reading", "get_object"),
        }
        ended: list[BaseException] = []

        def ask() -> None:
            try:
                calls[held]()
            except BaseException as error:  # noqa: BLE001 - Cancelled is no Exception
                ended.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        until("the request", lambda: proxy.seen)
        started = time.monotonic()
        token.cancel()
        thread.join(60)

        assert [type(error) for error in ended] == [Cancelled]
        assert time.monotonic() - started < 60  # and not the ten minutes of the store
        with pytest.raises(Cancelled):
            S3Object(s3_location, client).ask("reading", "head_object")
