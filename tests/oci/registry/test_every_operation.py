"""Every operation with a small blob and a large one, at servers with manners of their own."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.manifest import parse_manifest
from oci.registry import uploads
from oci.registry.repository import RegistryRepository
from oci.store import BlobOutcome, reader_of
from tests.oci.registry.conftest import Client
from tests.oci.registry.test_challenges import BOB
from tests.servers.quirky_registry import Quirky, QuirkyHandler
from tests.support.content import image

LARGE = random.Random(8340).randbytes(1_500_000)
IMAGE = image(8341)
Make = Callable[..., Client]


def every_operation(store: RegistryRepository) -> None:
    for data in (LARGE, b"small"):
        blob = Descriptor("application/octet-stream", digest_of(data), len(data))
        assert store.put_blob(blob, reader_of(data), fresh=True) is BlobOutcome.WRITTEN
        assert store.put_blob(blob, reader_of(data)) is BlobOutcome.SKIPPED
        assert store.blob_size(blob.digest) == len(data)
        assert b"".join(store.read_blob(blob)) == data
        assert b"".join(store.read_blob(blob, 1, 3)) == data[1:4]
    manifest = parse_manifest(IMAGE.raw, IMAGE.media_type)
    for one in IMAGE.blobs:
        store.put_blob(Descriptor(one.media_type, digest_of(one.data), len(one.data)), reader_of(one.data))
    store.put_manifest(manifest, "v1")
    head = store.head_manifest("v1")
    assert head is not None
    assert head.digest == manifest.digest
    assert store.head_manifest("missing") is None
    assert store.get_manifest("v1").raw == IMAGE.raw
    assert list(store.tags()) == ["v1"]
    assert store.referrers(manifest.digest) == ()
    store.delete_tag("v1")
    store.delete_manifest(manifest.digest)
    assert store.head_manifest("v1") is None


def mannered(manner: str) -> type[Quirky]:
    class Handler(QuirkyHandler):
        protocol_version = "HTTP/1.0" if "1.0" in manner else "HTTP/1.1"

        def send_header(self, keyword: str, value: str) -> None:
            if "no length" not in manner or keyword != "Content-Length" or self.command == "HEAD":
                super().send_header(keyword, value)

        def end_headers(self) -> None:
            if "close" in manner:
                self.close_connection = True
            if manner.startswith("close"):
                super().send_header("Connection", "close")
            super().end_headers()

    class Mannered(Quirky):
        handler = Handler

    return Mannered


@pytest.mark.parametrize("chunk_size", [0, 400_000])
@pytest.mark.parametrize("manner", ["HTTP/1.0", "HTTP/1.0, no length", "close", "close, no length", "silent close"])
def test_connections_that_serve_once(make_client: Make, manner: str, chunk_size: int) -> None:
    with mannered(manner)() as server:
        every_operation(make_client(chunk_size=chunk_size).repository(server.host, "a/b"))
        assert server.store.blobs[digest_of(LARGE)] == LARGE


LOCATIONS = {
    "relative to the path": "{session}",
    "with a dot": "./{session}",
    "with dots": "/v2/a/b/blobs/../blobs/uploads/{session}",
    "with a query": "{path}?_state=a%2Bb%3D&x=",
    "with an open query": "{path}?a=1&",
    "with a fragment": "{path}#x",
    "without a scheme": "//{host}{path}",
    "absolute": "http://{host}{path}",
    "in capitals": "HTTP://{host}{path}",
    "with the scheme that isn't spoken": "https://{host}{path}",
    "with blanks": "  {path}  ",
}


@pytest.mark.parametrize("chunk_size", [0, 400_000])
@pytest.mark.parametrize("form", LOCATIONS)
def test_locations(make_client: Make, form: str, chunk_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with Quirky() as server:
        answer = server.handler.answer

        def moved(call: Any, status: int, body: bytes = b"", /, **headers: str) -> None:
            path = headers.get("Location", "")
            if "/uploads/" in path:
                session = path.rpartition("/")[2]
                headers["Location"] = LOCATIONS[form].format(path=path, session=session, host=server.host)
            answer(call, status, body, **headers)

        monkeypatch.setattr(server.handler, "answer", moved)
        every_operation(make_client(chunk_size=chunk_size).repository(server.host, "a/b"))
        assert server.store.blobs[digest_of(LARGE)] == LARGE


@pytest.mark.parametrize("chunk_size", [0, 400_000])
@pytest.mark.parametrize("closes", [True, False], ids=["in the middle of the body", "after the body"])
@pytest.mark.parametrize("bare", [True, False], ids=["without a challenge", "with one"])
@pytest.mark.parametrize("uses", [1, 2, 3])
def test_tokens_for_few_requests(make_client: Make, uses: int, bare: bool, closes: bool, chunk_size: int) -> None:
    uses_left = {"": 0}

    def ends(call: Any, path: str) -> bool:
        if path == "/token":
            token = f"t{len(uses_left)}"
            uses_left.update(dict.fromkeys(uses_left, 0), **{f"Bearer {token}": uses})
            call.answer(200, json.dumps({"token": token}).encode())
            return True
        sent = call.headers.get("Authorization", "")
        if uses_left.get(sent, 0):
            uses_left[sent] -= 1
            return False
        if closes:
            call.close_connection = True
        else:
            call._drain()
        challenge = {"WWW_Authenticate": f'Bearer realm="{server.url}/token",service="s"'}
        call.answer(401, b"{}", **({} if bare and sent else challenge))
        return True

    with Quirky(ends) as server:
        every_operation(make_client(BOB, chunk_size=chunk_size).repository(server.host, "a/b"))
        assert server.store.blobs[digest_of(LARGE)] == LARGE


def early(call: Any, status: int, **headers: str) -> None:
    """Answers before the body's end and ends the connection as Go's net/http does: it says so, and reads what is still
    sent, or the answer would be lost with it."""
    call.answer(status, b"{}", Connection="close", **headers)
    call.close_connection = True
    call._drain()


class CountedTokens(Quirky):
    """Each token is good for so many requests, and for no more."""

    def __init__(self, uses: int, *, closes: bool = False) -> None:
        super().__init__(self.answered)
        self.uses = uses
        self.closes = closes
        self.left: dict[str, int] = {}
        self.refused = 0
        self.lock = threading.Lock()

    def answered(self, call: Any, path: str) -> bool:
        if path == "/token":
            with self.lock:
                token = f"t{len(self.left)}"
                self.left[f"Bearer {token}"] = self.uses
            call.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())
            return True
        sent = call.headers.get("Authorization", "")
        with self.lock:
            left = self.left.get(sent, 0)
            self.left[sent] = left - 1
            self.refused += not left > 0
        if left > 0:
            return False
        challenge = {"WWW_Authenticate": f'Bearer realm="{self.url}/token",service="s"'}
        if self.closes and call._length_left:
            early(call, 401, **challenge)
        else:
            call._drain()
            call.answer(401, b"{}", **challenge)
        return True


@pytest.mark.parametrize("chunk_size", [0, 400_000])
@pytest.mark.parametrize("uses", [1, 3])
def test_tokens_for_few_requests_and_many_threads(make_client: Make, uses: int, chunk_size: int) -> None:
    """Each thread gets a token that others have not used up, and no more are fetched than requests need."""
    datas = [random.Random(number).randbytes(100_000 if number % 2 else 1000) for number in range(60)]
    with CountedTokens(uses, closes=True) as server:
        client = make_client(BOB, chunk_size=chunk_size, retries=0)
        store = client.repository(server.host, "a/b")

        def upload(data: bytes) -> bytes:
            blob = Descriptor("application/octet-stream", digest_of(data), len(data))
            store.put_blob(blob, reader_of(data), fresh=True)
            return b"".join(store.read_blob(blob))

        with ThreadPoolExecutor(20) as threads:
            assert list(threads.map(upload, datas)) == datas
        accepted = sum(count for kind, count in client.counts.items() if "token" not in kind) - server.refused
        assert len(server.left) <= accepted / uses * 2 + 20
        before = server.refused
        every_operation(store)
        assert server.refused == before, "what a token is good for is known by now"


def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has chunks of 500,000 bytes sent as they are read, as those of 64 MiB are."""
    for name, value in {"LONG": 1_000_000, "STREAMED": 500_000, "CHUNK": 100_000}.items():
        monkeypatch.setattr(uploads, name, value)


@pytest.mark.parametrize("closes", [True, False], ids=["in the middle of the body", "after the body"])
def test_tokens_for_one_request_and_chunks_that_stream(
    make_client: Make, closes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed(monkeypatch)
    with CountedTokens(1, closes=closes) as server:
        every_operation(make_client(BOB, retries=0).repository(server.host, "a/b"))
        assert server.store.blobs[digest_of(LARGE)] == LARGE


@pytest.mark.parametrize("reads", [True, False], ids=["after the body", "before the body"])
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_body_that_streams_is_redirected(
    make_client: Make, method: str, reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "PATCH":
        streamed(monkeypatch)
    moved: list[str] = []

    def moves(call: Any, path: str) -> bool:
        if call.command != method or "/uploads/" not in path or "moved" in call.query:
            return False
        moved.append(path)
        location = f"{call.path}{'&' if '?' in call.path else '?'}moved=1"
        if reads:
            call._drain()
            call.answer(307, Location=location)
        else:
            early(call, 307, Location=location)
        return True

    with Quirky(moves) as server:
        every_operation(make_client(retries=0).repository(server.host, "a/b"))
        assert server.store.blobs[digest_of(LARGE)] == LARGE
    assert moved


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("where", ["the token service", "the storage"])
def test_a_slow_down_of_a_host_that_the_registry_points_to(make_client: Make, where: str, status: int) -> None:
    """Is no failed attempt there either: nothing is tried again after one, and all of it is done."""
    limited: list[str] = []

    def pointing(call: Any, path: str) -> bool:
        is_read = call.command in ("GET", "HEAD") and "/blobs/" in path and where == "the storage"
        is_elsewhere = (path == "/token" and where != "the storage") or (is_read and "signed" in call.query)
        if is_elsewhere and len(limited) < 3:
            limited.append(path)
            call.answer(status, Retry_After="0.01")
            return True
        if path == "/token":
            call.answer(200, b'{"token": "good"}')
        elif call.headers.get("Authorization") != "Bearer good" and "signed" not in call.query:
            call._drain()
            call.answer(401, WWW_Authenticate=f'Bearer realm="{server.url}/token"')
        elif is_read and "signed" not in call.query:
            call.answer(307, Location=f"{path}?signed=1")
        else:
            return False
        return True

    with Quirky(pointing) as server:
        every_operation(make_client(BOB, retries=0).repository(server.host, "a/b"))
    assert len(limited) == 3
