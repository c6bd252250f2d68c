"""Reading blobs and manifests, and what becomes of it when the connection or the bytes are bad."""

from __future__ import annotations

import gzip
import random
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from oci.descriptor import OCI_MANIFEST, Descriptor
from oci.digest import Chunk, Digest, digest_of
from oci.errors import Cancelled, IntegrityError, InvalidManifest, NotFound, Refused, StoreError, Unavailable
from oci.manifest import parse_manifest
from oci.reference import Repository
from oci.registry import blobs, endpoints, manifests
from oci.registry.http.answer import Answer
from oci.registry.http.body import PIECE, Headers
from oci.registry.manifests import next_page
from oci.store import BlobOutcome, reader_of
from tests.faults.proxy import Fault, FaultProxy
from tests.oci.registry.conftest import Client
from tests.servers.quirky_registry import Quirky
from tests.servers.strict_registry import Features, Refusal, StrictHandler, StrictRegistry
from tests.support.content import image, push
from tests.support.waiting import until

DATA = random.Random(3).randbytes(3_000_000)
REPOSITORY = Repository("registry.example", "a/b")
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))


@pytest.fixture
def server() -> Iterator[StrictRegistry]:
    with StrictRegistry() as one:
        one.store.add_blob("a/b", DATA)
        yield one


def read(client: Client, host: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join(client.repository(host, "a/b").read_blob(BLOB, offset, length))


def test_the_whole_and_any_part(server: StrictRegistry, client: Client) -> None:
    assert read(client, server.host) == DATA
    assert read(client, server.host, 1_000_000, 500) == DATA[1_000_000:1_000_500]
    assert read(client, server.host, 2_999_990) == DATA[2_999_990:]
    assert client.meter.receipt().bytes_read == len(DATA) + 510


def test_parts_of_a_registry_without_ranges(client: Client) -> None:
    with StrictRegistry(Features(ranges=False)) as server:
        server.store.add_blob("a/b", DATA)

        assert read(client, server.host, 1_000_000, 500) == DATA[1_000_000:1_000_500]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(path="/blobs/", last=3, reset_after=700_000),
        Fault(path="/blobs/", last=3, truncate_after=700_000),
        Fault(path="/blobs/", last=1, stall_after=700_000),
        Fault(path="/blobs/", last=2, reset_after=0),
        Fault(path="/blobs/", last=2, status=503),
        Fault(path="/blobs/", last=2, status=500, body=b"<html>oops</html>"),
    ],
    ids=["reset", "truncated", "stalled", "reset before the answer", "503", "500"],
)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_broken_read_goes_on_where_it_broke(make_client: Callable[..., Client], fault: Fault, ranges: bool) -> None:
    client = make_client(idle_timeout=1.0 if fault.stall_after else 60.0)
    fault.matched = 0
    with StrictRegistry(Features(ranges=ranges)) as server, FaultProxy(server.port, fault) as proxy:
        server.store.add_blob("a/b", DATA)

        assert read(client, proxy.host) == DATA
    assert client.meter.receipt().retries >= 1


def test_what_arrived_is_not_asked_for_again(server: StrictRegistry, client: Client) -> None:
    with FaultProxy(server.port, Fault(path="/blobs/", last=1, reset_after=2_000_000)) as proxy:
        read(client, proxy.host)

    assert client.meter.receipt().bytes_read == len(DATA)


def test_a_read_without_progress_ends(server: StrictRegistry, make_client: Callable[..., Client]) -> None:
    client = make_client(retries=2, side="source")
    with FaultProxy(server.port, Fault(path="/blobs/", reset_after=10)) as proxy:
        with pytest.raises(Unavailable) as caught:
            read(client, proxy.host)
        assert proxy.count("GET", "/blobs/") == 3

    assert caught.value.side == "source"
    assert str(BLOB.digest) in str(caught.value)


def test_a_corrupted_byte_is_noticed_before_the_end(server: StrictRegistry, client: Client) -> None:
    seen: list[Chunk] = []
    with (
        FaultProxy(server.port, Fault(path="/blobs/", corrupt_at=1_500_000)) as proxy,
        pytest.raises(IntegrityError, match="expected sha256"),
    ):
        seen.extend(client.repository(proxy.host, "a/b").read_blob(BLOB))

    assert len(b"".join(seen)) < len(DATA)


def test_instead_of_a_range_that_is_another_one_the_whole_is_read(server: StrictRegistry, client: Client) -> None:
    wrong = Fault(path="/blobs/", replace_headers={"Content-Range": f"bytes 5-10/{len(DATA)}"})
    with FaultProxy(server.port, wrong) as proxy:
        assert read(client, proxy.host, 100, 100) == DATA[100:200]
        assert read(client, proxy.host, 200, 100) == DATA[200:300]
        assert proxy.count("GET", "/blobs/") == 3


def test_a_drip_is_as_dead_as_silence(server: StrictRegistry, make_client: Callable[..., Client]) -> None:
    client = make_client(retries=0, idle_timeout=0.5)
    with (
        FaultProxy(server.port, Fault(path="/blobs/", drip=0.05)) as proxy,
        pytest.raises(Unavailable, match=r"only .* bytes in"),
    ):
        read(client, proxy.host)


def test_a_cancel_wakes_a_stalled_read_at_once(server: StrictRegistry, make_client: Callable[..., Client]) -> None:
    client = make_client(idle_timeout=60.0)
    with FaultProxy(server.port, Fault(path="/blobs/", stall_after=2 * PIECE + 1000)) as proxy:
        stream = client.repository(proxy.host, "a/b").read_blob(BLOB)
        next(stream)
        threading.Timer(0.2, client.cancel.cancel).start()
        started = time.monotonic()
        with pytest.raises(Cancelled):
            for _ in stream:
                pass

    assert time.monotonic() - started < 40  # and not the minute of the idle timeout


def test_a_layer_from_its_foreign_address(server: StrictRegistry, client: Client) -> None:
    elsewhere = Descriptor(BLOB.media_type, BLOB.digest, BLOB.size, urls=(f"{server.url}/v2/a/b/blobs/{BLOB.digest}",))

    assert b"".join(client.repository(server.host, "other/one").read_blob(elsewhere)) == DATA


def test_a_missing_blob_is_not_found(server: StrictRegistry, client: Client) -> None:
    missing = Descriptor("x", digest_of(b"missing"), 7)
    with pytest.raises(NotFound, match="BLOB_UNKNOWN"):
        list(client.repository(server.host, "a/b").read_blob(missing))


def test_credentials_and_ranges_survive_a_redirect_to_storage(make_client: Callable[..., Client]) -> None:
    with StrictRegistry() as storage, StrictRegistry(Features(blobs_at=storage.url)) as server:
        storage.store.add_blob("a/b", DATA)
        server.store.repository("a/b").blobs.add(BLOB.digest)
        client = make_client()

        assert read(client, server.host, 10, 10) == DATA[10:20]
        assert read(client, server.host) == DATA


def test_manifests_by_tag_and_digest(server: StrictRegistry, client: Client) -> None:
    content = image(1)
    push(server.url, "a/b", content, "v1", "v2")
    store = client.repository(server.host, "a/b")

    by_tag = store.get_manifest("v1")
    assert by_tag.raw == content.raw
    assert store.get_manifest(content.digest) == by_tag
    head = store.head_manifest("v2")
    assert head is not None
    assert (head.digest, head.size, head.media_type) == (content.digest, len(content.raw), OCI_MANIFEST)
    assert store.head_manifest("v3") is None
    assert store.head_manifest(digest_of(b"other")) is None
    with pytest.raises(NotFound, match="MANIFEST_UNKNOWN"):
        store.get_manifest("v3")


def test_a_head_without_a_digest_is_made_good_with_a_get(client: Client) -> None:
    content = image(1)
    with StrictRegistry(Features(digest_header=False)) as server:
        push(server.url, "a/b", content, "v1")
        head = client.repository(server.host, "a/b").head_manifest("v1")

    assert head is not None
    assert head.digest == content.digest


def test_a_head_that_speaks_of_another_digest_is_made_good_with_a_get(server: StrictRegistry, client: Client) -> None:
    content = image(1)
    push(server.url, "a/b", content, "v1")
    other = {"Docker-Content-Digest": digest_of(b"other")}
    with FaultProxy(server.port, Fault(method="HEAD", path="/manifests/", replace_headers=other)) as proxy:
        head = client.repository(proxy.host, "a/b").head_manifest(content.digest)

    assert head is not None
    assert (head.digest, head.size) == (content.digest, len(content.raw))


def test_a_manifest_with_other_bytes_than_its_digest_is_refused(server: StrictRegistry, client: Client) -> None:
    content = image(1)
    push(server.url, "a/b", content, "v1")
    with FaultProxy(server.port, Fault(method="GET", path="/manifests/", corrupt_at=40)) as proxy:
        store = client.repository(proxy.host, "a/b")
        for identifier in ("v1", content.digest):
            with pytest.raises(IntegrityError, match="expected sha256"):
                store.get_manifest(identifier)


def test_a_manifest_over_the_limit_is_refused(server: StrictRegistry, make_client: Callable[..., Client]) -> None:
    client = make_client(manifest_limit=100)
    content = image(1)
    push(server.url, "a/b", content, "v1")
    with pytest.raises(Refused, match=r"longer than 100 bytes.*manifest_limit"):
        client.repository(server.host, "a/b").get_manifest("v1")


def test_a_schema_1_manifest_is_refused_by_name(server: StrictRegistry, client: Client) -> None:
    old = Fault(
        path="/manifests/",
        status=200,
        headers={"Content-Type": "application/vnd.docker.distribution.manifest.v1+prettyjws"},
        body=b'{"schemaVersion":1}',
    )
    with FaultProxy(server.port, old) as proxy, pytest.raises(InvalidManifest, match="v1 format"):
        client.repository(proxy.host, "a/b").get_manifest("v1")


def test_a_pushed_manifest_is_compared_with_what_the_registry_made_of_it(
    server: StrictRegistry, client: Client
) -> None:
    content = image(1)
    push(server.url, "a/b", content)
    manifest = parse_manifest(content.raw)
    changed = Fault(method="PUT", replace_headers={"Docker-Content-Digest": digest_of(b"other")})
    with FaultProxy(server.port, changed) as proxy, pytest.raises(Refused, match="the registry made sha256"):
        client.repository(proxy.host, "a/b").put_manifest(manifest, "v1")


def test_an_immutable_tag_that_is_right_already_is_fine(client: Client) -> None:
    with StrictRegistry(Features(immutable_tags=True)) as server:
        first, second = image(1), image(2)
        push(server.url, "a/b", first, "v1")
        push(server.url, "a/b", second)
        store = client.repository(server.host, "a/b")

        store.put_manifest(parse_manifest(first.raw), "v1")
        with pytest.raises(Refused, match="choose another tag"):
            store.put_manifest(parse_manifest(second.raw), "v1")


@pytest.mark.parametrize("tag_delete", [True, False])
def test_deleting_a_tag_never_deletes_the_manifest(client: Client, tag_delete: bool) -> None:
    with StrictRegistry(Features(tag_delete=tag_delete)) as server:
        content = image(1)
        push(server.url, "a/b", content, "v1", "v2")
        store = client.repository(server.host, "a/b")
        if tag_delete:
            store.delete_tag("v1")
        else:
            with pytest.raises(Refused, match="can't delete a tag alone"):
                store.delete_tag("v1")

        assert store.head_manifest("v2") is not None
        store.delete_manifest(Digest(content.digest))
        assert store.head_manifest("v2") is None


@pytest.mark.parametrize(
    "features",
    [Features(), Features(page=7), Features(page=1000, links=False), Features(tag_paging=False)],
    ids=["paged", "small pages", "no Link", "everything at once"],
)
def test_all_tags_are_listed_once(client: Client, features: Features) -> None:
    with StrictRegistry(features) as server:
        tags = {f"v{number:04}": "sha256:0" for number in range(1234 if features.page != 7 else 50)}
        server.store.repository("a/b").tags = tags

        assert list(client.repository(server.host, "a/b").tags()) == sorted(tags)


@pytest.mark.parametrize("limit", [8, 7])
def test_a_list_may_have_as_many_pages_as_are_read(client: Client, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(manifests, "PAGES_LIMIT", limit)
    with StrictRegistry(Features(page=7)) as server:
        server.store.repository("a/b").tags = {f"v{number:02}": "sha256:0" for number in range(50)}
        store = client.repository(server.host, "a/b")
        if limit == 8:
            assert len(list(store.tags())) == 50
        else:
            with pytest.raises(Refused, match="more than 7 pages"):
                list(store.tags())


@pytest.mark.parametrize(
    "link",
    [
        '</v2/a/b/tags/list?last=x>; rel="next"',
        "</v2/a/b/tags/list?last=x>;rel=next",
        '</v2/a/b/tags/list?last=x>; title="a,b; c"; REL="prev Next"',
        '</v2/a/b/tags/list>; rel="prev", </v2/a/b/tags/list?last=x>; rel="next"',
    ],
)
def test_the_next_page_is_found_in_every_form_of_a_link(link: str) -> None:
    target = endpoints.tags(REPOSITORY)
    following = next_page(Answer(200, Headers(link=link), b"", ""), target)

    assert following is not None
    assert following.path == "/v2/a/b/tags/list?last=x"


@pytest.mark.parametrize("link", ['</v2/a/b/tags/list?last=x>; rel="prev"', "/v2/a/b/tags/list?last=x", "<", ""])
def test_other_links_lead_to_no_page(link: str) -> None:
    target = endpoints.tags(REPOSITORY)

    assert next_page(Answer(200, Headers(link=link), b"", ""), target) is None


def test_a_link_that_cannot_be_read_ends_no_list(client: Client) -> None:
    bare = Fault(path="tags/list", replace_headers={"Link": "/v2/a/b/tags/list?last=v6"})
    with StrictRegistry(Features(page=7)) as server, FaultProxy(server.port, bare) as proxy:
        server.store.repository("a/b").tags = {f"v{number:02}": "sha256:0" for number in range(30)}

        assert len(list(client.repository(proxy.host, "a/b").tags())) == 30


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_blob_that_a_proxy_compressed_arrives(server: StrictRegistry, client: Client, coding: str) -> None:
    coded = gzip.compress(DATA) if coding == "gzip" else zlib.compress(DATA)
    fault = Fault(path="/blobs/", status=200, headers={"Content-Encoding": coding}, body=coded)
    with FaultProxy(server.port, fault) as proxy:
        assert read(client, proxy.host) == DATA


def test_a_label_of_a_blob_that_is_compressed_itself_changes_nothing(server: StrictRegistry, client: Client) -> None:
    fault = Fault(path="/blobs/", status=200, headers={"Content-Encoding": "gzip"}, body=DATA)
    with FaultProxy(server.port, fault) as proxy:
        assert read(client, proxy.host) == DATA


def test_tags_of_no_repository_are_not_found(server: StrictRegistry, client: Client) -> None:
    with pytest.raises(NotFound, match="NAME_UNKNOWN"):
        list(client.repository(server.host, "no/where").tags())


@pytest.mark.parametrize("body", [b'{"tags": {"a": 1}}', b'{"tags": [{"name": "v1"}]}', b'{"schemaVersion": 2}', b"{}"])
def test_an_answer_that_is_no_list_of_tags_is_refused(server: StrictRegistry, client: Client, body: bytes) -> None:
    with (
        FaultProxy(server.port, Fault(path="tags/list", status=200, body=body)) as proxy,
        pytest.raises(Refused, match="no list of tags"),
    ):
        list(client.repository(proxy.host, "a/b").tags())


def test_a_list_without_tags_is_empty(server: StrictRegistry, client: Client) -> None:
    for body in (b'{"name": "a/b"}', b'{"name": "a/b", "tags": null}', b'{"tags": []}'):
        with FaultProxy(server.port, Fault(path="tags/list", status=200, body=body)) as proxy:
            assert list(client.repository(proxy.host, "a/b").tags()) == []


def test_what_is_no_name_in_a_list_is_left_out(server: StrictRegistry, client: Client) -> None:
    body = b'{"name": "a/b", "tags": [null, "v1", 7, "v2"]}'
    with FaultProxy(server.port, Fault(path="tags/list", status=200, body=body)) as proxy:
        assert list(client.repository(proxy.host, "a/b").tags()) == ["v1", "v2"]


def test_a_registry_error_is_told_with_its_own_code(server: StrictRegistry, client: Client) -> None:
    body = b'{"errors":[{"code":"DENIED","message":"pull access denied"}]}'
    with (
        FaultProxy(server.port, Fault(path="/manifests/", status=403, body=body)) as proxy,
        pytest.raises(StoreError) as caught,
    ):
        client.repository(proxy.host, "a/b").get_manifest("v1")

    assert caught.value.code == "DENIED"
    assert f"GET {proxy.url}/v2/a/b/manifests/v1: DENIED: pull access denied (403)" in str(caught.value)


class _Throttled(StrictHandler):
    """A body comes at a fixed speed on each connection."""

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        server: Any = self.registry
        if self.command != "GET" or "/blobs/" not in self.path or status not in (200, 206):
            super().answer(status, body, **headers)
            return
        started = time.monotonic()
        with server.lock:
            server.reading += 1
            server.most = max(server.most, server.reading)
        super().answer(status, b"", Content_Length=str(len(body)), **headers)
        for start in range(0, len(body), server.piece):
            time.sleep(server.piece / server.speed)
            self.wfile.write(body[start : start + server.piece])
        with server.lock:
            server.reading -= 1
            server.spans.append((started, time.monotonic()))


class Throttled(StrictRegistry):
    handler = _Throttled

    def __init__(self, speed: int, features: Features | None = None) -> None:
        super().__init__(features)
        self.speed, self.piece, self.lock, self.reading, self.most = speed, 64 << 10, threading.Lock(), 0, 0
        self.spans: list[tuple[float, float]] = []
        """Begin and end of each answer, in seconds."""

    @property
    def reading_on_average(self) -> float:
        """Answers under way at a time, from the begin of the first to the end of the last."""
        begins, ends = zip(*self.spans, strict=True)
        return float(sum(end - begin for begin, end in self.spans) / (max(ends) - min(begins)))


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(blobs, "PART", 256 << 10)
    return blobs.PART


LONG = random.Random(4).randbytes(8 << 20)
LONG_BLOB = Descriptor("application/octet-stream", digest_of(LONG), len(LONG))


@pytest.mark.usefixtures("small_parts")
def test_slow_connections_read_a_blob_together(make_client: Callable[..., Client]) -> None:
    with Throttled(speed=1 << 19) as server:
        server.store.add_blob("a/b", LONG)
        client = make_client(parallel_reads=8, concurrency=10, side="source")
        chunks = client.repository(server.host, "a/b").read_blob(LONG_BLOB)
        assert b"".join(chunks) == LONG
        until("all answers have ended", lambda: len(server.spans) == len(LONG) // blobs.PART)
    assert server.most == 8
    assert server.reading_on_average >= 5


@pytest.mark.usefixtures("small_parts")
def test_no_more_parts_are_read_than_fit(make_client: Callable[..., Client]) -> None:
    with Throttled(speed=1 << 30) as server:
        server.store.add_blob("a/b", LONG)
        client = make_client(parallel_reads=4, concurrency=10, side="source")
        chunks = client.repository(server.host, "a/b").read_blob(LONG_BLOB)
        next(chunks)
        until("as many parts as fit were asked for", lambda: len(server.requests()) >= 4)
        next(chunks)
        assert len(server.requests()) <= 6
        chunks.close()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("ranges", [True, False])
def test_parts_are_put_together_in_order_and_proven(make_client: Callable[..., Client], ranges: bool) -> None:
    with Throttled(1 << 30, Features(ranges=ranges)) as server:
        server.store.add_blob("a/b", LONG)
        store = make_client(parallel_reads=8, side="source").repository(server.host, "a/b")
        assert b"".join(store.read_blob(LONG_BLOB)) == LONG
        assert b"".join(store.read_blob(LONG_BLOB, 3_000_001)) == LONG[3_000_001:]
        assert len(server.requests()) == (32 + 21 if ranges else 3)

        server.store.blobs[LONG_BLOB.digest] = LONG[:5_000_000] + b"X" + LONG[5_000_001:]
        with pytest.raises(IntegrityError):
            b"".join(store.read_blob(LONG_BLOB))


@pytest.mark.usefixtures("small_parts")
def test_a_part_that_breaks_is_read_on(make_client: Callable[..., Client]) -> None:
    with StrictRegistry() as server:
        server.store.add_blob("a/b", LONG)
        fault = Fault(method="GET", path="/blobs/", first=2, last=5, truncate_after=100_000)
        with FaultProxy(server.port, fault) as proxy:
            store = make_client(parallel_reads=4, side="source").repository(proxy.host, "a/b")
            assert b"".join(store.read_blob(LONG_BLOB)) == LONG


NO_SIZE: dict[str, tuple[int, dict[str, str]]] = {
    "refused": (400, {}),
    "denied": (403, {}),
    "out of order": (500, {}),
    "beyond the end": (416, {}),
    "beyond the end, with the length": (416, {"Content_Range": f"bytes */{len(DATA)}"}),
    "a part of what isn't known": (206, {"Content_Range": "bytes 0-0/*"}),
    "a part without its place": (206, {}),
}


@pytest.mark.parametrize("answer", NO_SIZE)
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_size_that_neither_head_nor_a_range_tells(make_client: Callable[..., Client], answer: str, side: str) -> None:
    status, headers = NO_SIZE[answer]

    def quirk(call: Any, path: str) -> bool:
        if call.command == "HEAD" and "/blobs/" in path:
            raise Refusal(405, "UNSUPPORTED")
        if "Range" not in call.headers:
            return False
        call.answer(status, b"x" if status == 206 else b"", **headers)
        return True

    with Quirky(quirk) as server:
        for data in (DATA, b""):
            server.store.add_blob("a/b", data)
        store = make_client(retries=0, side=side).repository(server.host, "a/b")
        assert store.blob_size(digest_of(DATA)) == len(DATA)
        assert store.blob_size(digest_of(b"")) == 0
        assert store.blob_size(digest_of(b"absent")) is None
        if side == "destination":
            assert store.put_blob(BLOB, reader_of(DATA)) is BlobOutcome.SKIPPED


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 416, 500, 501])
@pytest.mark.parametrize("redirected", [True, False])
def test_a_read_goes_on_where_ranges_are_refused(
    make_client: Callable[..., Client], status: int, redirected: bool
) -> None:
    """By the registry, or by the storage that it redirects to."""
    cut: list[str] = []

    def quirk(call: Any, path: str) -> bool:
        if "/blobs/" not in path or call.command != "GET":
            return False
        if redirected and "signed" not in call.query:
            call.answer(307, Location=f"{path}?signed=1")
        elif "Range" in call.headers:
            call.answer(status)
        elif not cut:
            cut.append(path)
            call.answer(200, DATA[:1000], Content_Length=str(len(DATA)))
            call.close_connection = True
        else:
            return False
        return True

    with Quirky(quirk) as server:
        server.store.add_blob("a/b", DATA)
        assert b"".join(make_client(retries=1).repository(server.host, "a/b").read_blob(BLOB)) == DATA
        assert cut
