from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from oci.archive.s3 import S3, S3Reader
from oci.errors import Cancelled, CancelToken, NotFound, Refused, Unavailable
from tests.faults.proxy import Fault, FaultProxy
from tests.servers.seaweedfs import SeaweedFS
from tests.support.tarballs import MIB, Tarball

DATA = Tarball.of(1, [3 * MIB]).data


@pytest.fixture
def proxy(object_store: SeaweedFS) -> Iterator[FaultProxy]:
    with FaultProxy(object_store.port) as front:
        yield front


@pytest.fixture
def stored(object_store: SeaweedFS, s3_location: str) -> str:
    object_store.put(s3_location, DATA)
    return s3_location


def reader(store: SeaweedFS, location: str, cancel: CancelToken | None = None, **changes: object) -> S3Reader:
    settings = store.settings.with_(timeout=0.8, tries=2, **changes)
    return S3Reader(location, S3(settings, side="source", cancel=cancel))


def test_any_range_is_read_and_nothing_else(object_store: SeaweedFS, stored: str) -> None:
    opened = reader(object_store, stored)

    assert opened.size == len(DATA)
    for offset, length in ((0, 1), (0, len(DATA)), (1000, 2 * MIB), (len(DATA) - 7, 7), (5, 0)):
        assert b"".join(opened.read(offset, length)) == DATA[offset : offset + length]


FAULTS = {
    "reset": Fault(method="GET", last=2, reset_after=500_000),
    "cut short": Fault(method="GET", last=2, truncate_after=500_000),
    "stalled": Fault(method="GET", last=1, stall_after=500_000),
    "500": Fault(method="GET", last=1, status=500),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_a_stream_that_breaks_off_goes_on_where_it_broke(
    object_store: SeaweedFS, proxy: FaultProxy, stored: str, fault: Fault
) -> None:
    proxy.rules.append(replace(fault, matched=0))

    assert b"".join(reader(object_store, stored, endpoint=proxy.url).read(0, len(DATA))) == DATA


def test_a_stream_that_always_breaks_at_once_ends_in_an_error(
    object_store: SeaweedFS, proxy: FaultProxy, stored: str
) -> None:
    proxy.rules.append(Fault(method="GET", truncate_after=0))

    with pytest.raises(Unavailable, match="reading"):
        list(reader(object_store, stored, endpoint=proxy.url).read(0, len(DATA)))


def test_a_store_that_gives_all_of_it_is_refused(object_store: SeaweedFS, proxy: FaultProxy, stored: str) -> None:
    proxy.rules.append(Fault(method="GET", replace_headers={"Content-Range": ""}))

    with pytest.raises(Refused, match="got the whole object"):
        list(reader(object_store, stored, endpoint=proxy.url).read(0, 100))


def test_an_object_that_is_replaced_meanwhile_is_not_mixed_with_the_new_one(
    object_store: SeaweedFS, stored: str
) -> None:
    opened = reader(object_store, stored)
    object_store.put(stored, DATA[::-1])

    with pytest.raises(Refused, match="reading"):
        list(opened.read(0, 100))


def test_what_is_not_there_is_said(object_store: SeaweedFS, s3_location: str) -> None:
    with pytest.raises(NotFound, match=r"source s3://.*opening.*check the bucket, the key and the endpoint"):
        reader(object_store, s3_location)


def test_a_cancelled_run_reads_no_more(object_store: SeaweedFS, stored: str) -> None:
    cancel = CancelToken()
    chunks = reader(object_store, stored, cancel).read(0, len(DATA))
    next(chunks)
    cancel.cancel()

    with pytest.raises(Cancelled):
        list(chunks)
