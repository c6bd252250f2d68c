"""The upload ladder, against docker-registry, the strict registry with each switch, and a proxy that breaks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of, verified
from oci.errors import Cancelled, CancelToken, IntegrityError, NotFound, Refused, StoreError, Unavailable
from oci.reference import Repository
from oci.registry.repository import MISSES
from oci.registry.uploads import CHUNK_MEMORY, MEMORY
from oci.store import BlobOutcome, reader_of
from tests.faults.proxy import Fault, FaultProxy
from tests.oci.registry.conftest import Client
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.waiting import until

SMALL = b"small " * 100
LARGE = random.Random(7).randbytes(3_000_000)


def described(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def stored(host: str, repository: str, data: bytes) -> bytes:
    """What the registry has, by plain HTTP."""
    answer = httpx.get(f"http://{host}/v2/{repository}/blobs/{digest_of(data)}")
    return answer.content if answer.status_code == 200 else b""


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_blob_arrives_and_is_then_skipped(
    registry: DockerRegistry, repository: str, client: Client, data: bytes
) -> None:
    store = client.repository(registry.host, repository)

    assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.WRITTEN
    assert store.put_blob(described(data), reader_of(data)) is BlobOutcome.SKIPPED
    assert stored(registry.host, repository, data) == data


def test_a_new_blob_costs_two_requests_and_one_that_is_there_costs_one(
    registry: DockerRegistry, repository: str, client: Client
) -> None:
    store = client.repository(registry.host, repository)
    store.put_blob(described(b"first"), reader_of(b"first"))
    before = client.counts

    store.put_blob(described(LARGE), reader_of(LARGE))
    after = client.counts
    store.put_blob(described(LARGE), reader_of(LARGE))

    assert {kind: after[kind] - before[kind] for kind in after if after[kind] != before[kind]} == {
        "POST upload": 1,
        "PUT upload": 1,
    }
    assert client.counts["POST upload"] == after["POST upload"] + 1
    assert client.meter.receipt().bytes_written == len(LARGE) + 5


def test_a_blob_of_a_sibling_repository_is_mounted(registry: DockerRegistry, repository: str, client: Client) -> None:
    client.repository(registry.host, repository).put_blob(described(LARGE), reader_of(LARGE))
    sibling = client.repository(registry.host, f"{repository}/sibling")

    outcome = sibling.put_blob(described(LARGE), _never, mount_from=[Repository(registry.host, repository)], fresh=True)

    assert outcome is BlobOutcome.MOUNTED
    assert stored(registry.host, f"{repository}/sibling", LARGE) == LARGE
    assert client.meter.receipt().bytes_mounted == len(LARGE)


def test_a_mount_that_is_refused_becomes_an_upload(registry: DockerRegistry, repository: str, client: Client) -> None:
    with FaultProxy(registry.port, Fault(method="POST", path="mount=.*sibling", status=401)) as proxy:
        outcome = client.repository(proxy.host, repository).put_blob(
            described(LARGE), reader_of(LARGE), mount_from=[Repository(proxy.host, "sibling/one")], fresh=True
        )

    assert outcome is BlobOutcome.WRITTEN
    assert stored(registry.host, repository, LARGE) == LARGE


@pytest.mark.parametrize(
    "features",
    [Features(), Features(mount=False), Features(single_post=False), Features(mount=False, single_post=False)],
    ids=["all", "no mount", "no single POST", "neither"],
)
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_every_kind_of_registry_gets_each_blob_once(client: Client, features: Features, data: bytes) -> None:
    with StrictRegistry(features) as server:
        store = client.repository(server.host, "a/b")
        outcomes = [store.put_blob(described(data), reader_of(data)) for _ in range(3)]

        assert outcomes == [BlobOutcome.WRITTEN, BlobOutcome.SKIPPED, BlobOutcome.SKIPPED]
        assert server.store.blobs[digest_of(data)] == data
        assert not server.store.uploads


def test_a_small_blob_goes_in_one_request_where_that_works(client: Client) -> None:
    """A repository without tags may have blobs of an interrupted run: the first small ones are asked for."""
    datas = [f"number {number}".encode() for number in range(MISSES + 4)]
    with StrictRegistry() as server:
        store = client.repository(server.host, "a/b")
        for data in datas:
            store.put_blob(described(data), reader_of(data), fresh=True)

        methods = [seen.method for seen in server.requests()]
        assert methods == ["POST", "HEAD", "PUT", "POST"] + ["POST", "PUT"] * (MISSES - 1) + ["POST"] * 4


@pytest.mark.parametrize("single_post", [True, False])
def test_blobs_of_an_interrupted_run_are_found_in_a_repository_without_tags(
    make_client: Callable[..., Client], single_post: bool
) -> None:
    datas = [f"number {number}".encode() for number in range(40)] + [LARGE + bytes([number]) for number in range(4)]
    with StrictRegistry(Features(single_post=single_post)) as server:
        first = make_client().repository(server.host, "a/b")
        for data in datas[:30] + datas[40:42]:
            first.put_blob(described(data), reader_of(data), fresh=True)
        second = make_client().repository(server.host, "a/b")
        outcomes = [second.put_blob(described(data), reader_of(data), fresh=True) for data in datas]

        assert outcomes[:30] + outcomes[40:42] == [BlobOutcome.SKIPPED] * 32
        assert outcomes[30:40] + outcomes[42:] == [BlobOutcome.WRITTEN] * 12


def test_many_threads_ask_for_no_more_than_the_misses_allow(client: Client) -> None:
    """A burst of blobs to a registry that nothing is known of, into a repository without tags."""
    datas = [b"burst %d" % number for number in range(60)]
    with StrictRegistry(Features(mount=False)) as server, ThreadPoolExecutor(50) as threads:
        store = client.repository(server.host, "a/b")

        def put(data: bytes) -> BlobOutcome:
            return store.put_blob(described(data), reader_of(data), fresh=True)

        assert set(threads.map(put, datas)) == {BlobOutcome.WRITTEN}
    assert client.counts["HEAD blob"] == MISSES


@pytest.mark.parametrize("resume", [True, False], ids=["resumes", "starts over"])
def test_an_upload_that_is_cut_goes_on(client: Client, resume: bool) -> None:
    with (
        StrictRegistry(Features(resume=resume)) as server,
        FaultProxy(server.port, Fault(method="PUT", path="uploads", last=1, cut_upload_after=1_000_000)) as proxy,
    ):
        outcome = client.repository(proxy.host, "a/b").put_blob(described(LARGE), reader_of(LARGE), fresh=True)

        assert outcome is BlobOutcome.WRITTEN
        assert server.store.blobs[digest_of(LARGE)] == LARGE
        patched = sum(seen.method == "PATCH" for seen in server.requests())
        assert (patched > 0) == resume


def test_docker_registry_loses_a_cut_upload_and_gets_it_again(
    registry: DockerRegistry, repository: str, client: Client
) -> None:
    fault = Fault(method="PUT", path="uploads", last=2, cut_upload_after=500_000)
    with FaultProxy(registry.port, fault) as proxy:
        client.repository(proxy.host, repository).put_blob(described(LARGE), reader_of(LARGE), fresh=True)

    assert stored(registry.host, repository, LARGE) == LARGE
    assert client.meter.receipt().retries >= 2


def test_chunks_where_a_proxy_limits_the_size_of_requests(
    registry: DockerRegistry, repository: str, make_client: Callable[..., Client]
) -> None:
    fault = Fault(method="PUT", path="uploads", last=1, status=413, body=b"<html>too large</html>")
    client = make_client(chunk_size=0)
    with FaultProxy(registry.port, fault) as proxy:
        client.repository(proxy.host, repository).put_blob(described(LARGE), reader_of(LARGE), fresh=True)
        assert proxy.count("PATCH", "uploads") == 2

    assert stored(registry.host, repository, LARGE) == LARGE


def test_chunks_are_as_long_as_the_registry_wants_them(make_client: Callable[..., Client]) -> None:
    client = make_client(chunk_size=100_000)
    with StrictRegistry(Features(min_chunk=1_000_000)) as server:
        client.repository(server.host, "a/b").put_blob(described(LARGE), reader_of(LARGE), fresh=True)

        assert sum(seen.method == "PATCH" for seen in server.requests()) == 3
        assert server.store.blobs[digest_of(LARGE)] == LARGE


def test_chunks_of_all_blobs_share_a_bounded_memory(make_client: Callable[..., Client]) -> None:
    """Fifty threads with chunks of 16 MiB took 255 MB. A blob is only read once there is memory for its chunks."""
    client = make_client(chunk_size=1_000_000)
    begun: list[int] = []

    def read(offset: int) -> Iterator[bytes]:
        begun.append(offset)
        return iter((LARGE[offset:],))

    with StrictRegistry() as server, ThreadPoolExecutor(1) as threads:
        store = client.repository(server.host, "a/b")
        with MEMORY.reserved(CHUNK_MEMORY - 999_999, CancelToken()):
            waiting = threads.submit(store.put_blob, described(LARGE), read, fresh=True)
            until("the session is there", lambda: bool(server.store.uploads) and MEMORY.waiting > 0)
            assert not begun
        assert waiting.result() is BlobOutcome.WRITTEN
        assert begun == [0]

        with MEMORY.reserved(CHUNK_MEMORY, CancelToken()):
            cancelled = threads.submit(store.put_blob, described(LARGE[1:]), read, fresh=True)
            until("a blob waits for memory", lambda: MEMORY.waiting > 0)
            client.cancel.cancel()
            with pytest.raises(Cancelled):
                cancelled.result()


def test_a_wrong_byte_never_completes_an_upload_and_its_session_is_cancelled(client: Client) -> None:
    bad = b"X" + LARGE[1:]
    with StrictRegistry() as server:
        store = client.repository(server.host, "a/b")
        with pytest.raises(IntegrityError, match="but the bytes have"):
            store.put_blob(described(LARGE), lambda _: verified(iter((bad,)), digest_of(LARGE), len(LARGE)), fresh=True)

        assert not server.store.blobs
        assert not server.store.uploads
        assert store.blob_size(digest_of(LARGE)) is None


def test_an_error_of_the_source_goes_up_as_it_is(registry: DockerRegistry, repository: str, client: Client) -> None:
    def broken(offset: int) -> Iterator[bytes]:
        yield LARGE[offset:1_000_000]
        raise Unavailable("it is gone", side="source", store="origin.example")

    store = client.repository(registry.host, repository)
    with pytest.raises(Unavailable, match=r"source origin\.example: it is gone"):
        store.put_blob(described(LARGE), broken, fresh=True)

    assert store.blob_size(digest_of(LARGE)) is None


def test_what_a_read_has_open_is_closed_when_its_upload_breaks(make_client: Callable[..., Client]) -> None:
    """While the error is still looked at: its traceback refers to the read."""
    begun, ended = [], []
    data = LARGE * 10

    def pieces(offset: int) -> Iterator[bytes]:
        begun.append(offset)
        try:
            for at in range(offset, len(data), len(LARGE)):
                yield data[at : at + len(LARGE)]
        finally:
            ended.append(offset)

    fault = Fault(method="PUT", path="uploads", cut_upload_after=500_000)
    with StrictRegistry(Features(resume=False)) as server, FaultProxy(server.port, fault) as proxy:
        store = make_client(retries=0).repository(proxy.host, "a/b")
        with pytest.raises(Unavailable) as caught:
            store.put_blob(described(data), pieces, fresh=True)
        assert caught.value.side == "destination"
        assert begun
        assert ended == begun


@pytest.mark.parametrize("status", [500, 503])
def test_an_upload_that_keeps_failing_says_so_and_leaves_no_session(
    make_client: Callable[..., Client], status: int
) -> None:
    client = make_client(retries=2)
    with (
        StrictRegistry() as server,
        FaultProxy(server.port, Fault(method="PUT", path="uploads", status=status)) as proxy,
    ):
        with pytest.raises(Unavailable, match=f"{status}") as caught:
            client.repository(proxy.host, "a/b").put_blob(described(LARGE), reader_of(LARGE), fresh=True)

        assert caught.value.side == "destination"
        assert "?" not in str(caught.value)
        assert proxy.count("PUT", "uploads") == 3
        assert not server.store.uploads


def test_eight_threads_with_the_same_blob_do_no_harm(registry: DockerRegistry, repository: str, client: Client) -> None:
    store = client.repository(registry.host, repository)
    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(lambda _: store.put_blob(described(LARGE), reader_of(LARGE)), range(8)))

    assert BlobOutcome.WRITTEN in outcomes
    assert stored(registry.host, repository, LARGE) == LARGE


def test_a_registry_that_makes_something_else_of_a_blob_is_refused(client: Client) -> None:
    changed = {"Docker-Content-Digest": digest_of(b"other")}
    with (
        StrictRegistry() as server,
        FaultProxy(server.port, Fault(method="PUT", replace_headers=changed)) as proxy,
        pytest.raises(Refused, match="the registry made sha256"),
    ):
        client.repository(proxy.host, "a/b").put_blob(described(LARGE), reader_of(LARGE), fresh=True)


def test_a_repository_that_must_be_created_first_is_named(client: Client) -> None:
    body = b'{"errors":[{"code":"NAME_UNKNOWN","message":"The repository does not exist"}]}'
    with (
        StrictRegistry() as server,
        FaultProxy(server.port, Fault(method="POST", status=404, body=body)) as proxy,
        pytest.raises(NotFound, match=r"NAME_UNKNOWN.*created first"),
    ):
        client.repository(proxy.host, "a/b").put_blob(described(LARGE), reader_of(LARGE), fresh=True)


def test_a_read_only_registry_says_what_it_is(tmp_path: Any, client: Client) -> None:
    with DockerRegistry(tmp_path, read_only=True) as server, pytest.raises(StoreError, match="405") as caught:
        client.repository(server.host, "a/b").put_blob(described(SMALL), reader_of(SMALL))

    assert not caught.value.retryable


def _never(offset: int) -> Iterator[bytes]:
    raise AssertionError("nothing was to be read")
