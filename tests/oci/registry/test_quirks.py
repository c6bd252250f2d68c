"""Odd answers of registries to what is done right: each is gone along with, and the bytes arrive."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import StoreError
from oci.manifest import parse_manifest
from oci.reference import Repository
from oci.registry.repository import RegistryRepository
from oci.relocation.verify import verify_names
from oci.store import BlobOutcome, reader_of
from tests.oci.registry.conftest import Client
from tests.servers.quirky_registry import Quirk, Quirky
from tests.servers.strict_registry import Refusal, StrictRegistry
from tests.support.content import image, index, push
from tests.support.relocating import session

DATA = random.Random(12).randbytes(400_000)
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
IMAGE = image(8300)


def is_mount(call: Any) -> bool:
    return call.command == "POST" and "mount" in call.query


def without_location(call: Any, path: str) -> bool:
    if is_mount(call):
        call._drain()
        call.answer(202)
    return is_mount(call)


def claimed(call: Any, path: str) -> bool:
    """The blob isn't there."""
    if is_mount(call):
        call.answer(201, Location=f"/v2/a/b/blobs/{call.query['mount']}")
    return is_mount(call)


@pytest.mark.parametrize("quirk", [without_location, claimed])
@pytest.mark.parametrize("status", [400, 404], ids=["MANIFEST_BLOB_UNKNOWN 400", "404"])
def test_a_mount_whose_answer_is_no_use_ends_in_an_upload(client: Client, quirk: Quirk, status: int) -> None:
    with Quirky(quirk, {("PUT", 400): status}) as server:
        store = client.repository(server.host, "a/b")
        for blob in IMAGE.blobs:
            described = Descriptor("application/octet-stream", digest_of(blob.data), len(blob.data))
            store.put_blob(described, reader_of(blob.data), mount_from=[Repository(server.host, "c/d")], fresh=True)
        store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
        stored = server.store.repositories["a/b"]
        assert stored.tags["v1"] == IMAGE.digest
        assert {digest_of(blob.data) for blob in IMAGE.blobs} <= stored.blobs


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("elsewhere", [True, False])
def test_an_upload_that_is_redirected_follows_with_its_body(client: Client, status: int, elsewhere: bool) -> None:
    with StrictRegistry() as storage:

        def moved(call: Any, path: str) -> bool:
            if call.command != "POST" or "mount" in call.query or "moved" in call.query:
                return False
            call._drain()
            host = storage.url if elsewhere else ""
            mark = "&" if "?" in call.path else "?"
            call.answer(status, Location=f"{host}{call.path}{mark}moved=1")
            return True

        with Quirky(moved) as server:
            store = client.repository(server.host, "a/b")
            for data in (b"small", DATA):
                blob = Descriptor("application/octet-stream", digest_of(data), len(data))
                assert store.put_blob(blob, reader_of(data), fresh=True) is BlobOutcome.WRITTEN
                there = {**server.store.blobs, **(storage.store.blobs if elsewhere else {})}
                assert there[blob.digest] == data


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("elsewhere", [True, False])
@pytest.mark.parametrize("moves", ["PUT /uploads/", "PATCH /uploads/", "PUT /manifests/", "DELETE /manifests/"])
def test_every_write_follows_a_redirect_with_its_body(
    make_client: Callable[..., Client], moves: str, status: int, elsewhere: bool
) -> None:
    method, _, part = moves.partition(" ")
    with StrictRegistry() as other:

        def moved(call: Any, path: str) -> bool:
            if call.command != method or part not in path or "moved" in call.query:
                return False
            call._drain()
            other.store = server.store
            mark = "&" if "?" in call.path else "?"
            call.answer(status, Location=f"{other.url if elsewhere else ''}{call.path}{mark}moved=1")
            return True

        with Quirky(moved) as server:
            store = make_client(chunk_size=100_000 if method == "PATCH" else 0).repository(server.host, "a/b")
            assert store.put_blob(BLOB, reader_of(DATA), fresh=True) is BlobOutcome.WRITTEN
            for blob in IMAGE.blobs:
                described = Descriptor("application/octet-stream", digest_of(blob.data), len(blob.data))
                store.put_blob(described, reader_of(blob.data), fresh=True)
            store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
            assert server.store.repositories["a/b"].tags["v1"] == IMAGE.digest
            store.delete_tag("v1")
            store.delete_manifest(digest_of(IMAGE.raw))
            assert not server.store.repositories["a/b"].manifests
            assert bool(other.requests()) == elsewhere


@pytest.mark.parametrize("moves", ["PUT /uploads/", "PUT /manifests/", "DELETE /manifests/"])
def test_a_redirect_that_leads_nowhere_is_no_success(make_client: Callable[..., Client], moves: str) -> None:
    method, _, part = moves.partition(" ")

    def moved(call: Any, path: str) -> bool:
        if call.command != method or part not in path:
            return False
        call._drain()
        call.answer(307)
        return True

    with Quirky() as server:
        push(server.url, "a/b", IMAGE, "v1")
        server.quirk = moved
        store = make_client(retries=0).repository(server.host, "a/b")
        with pytest.raises(StoreError) as caught:
            _written(store)
        assert caught.value.status == 307


def _written(store: RegistryRepository) -> None:
    store.put_blob(BLOB, reader_of(DATA), fresh=True)
    store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v2")
    store.delete_tag("v1")


@pytest.mark.parametrize("status", [200, 202, 204])
def test_other_statuses_of_success_are_success(client: Client, status: int) -> None:
    with Quirky() as server:
        push(server.url, "a/b", IMAGE)
        server.statuses = {("PUT", 201): status}
        store = client.repository(server.host, "a/b")
        assert store.put_blob(BLOB, reader_of(DATA), fresh=True) is BlobOutcome.WRITTEN
        assert server.store.blobs[BLOB.digest] == DATA
        store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
        assert server.store.repositories["a/b"].tags["v1"] == IMAGE.digest


@pytest.mark.parametrize("kind", ["/manifests/", "/uploads/"])
def test_digest_invalid_once_is_tried_again(client: Client, kind: str) -> None:
    def once(call: Any, path: str) -> bool:
        if call.command == "PUT" and kind in path and call.registry.first():
            raise Refusal(400, "DIGEST_INVALID", "the bytes have another digest")
        return False

    with Quirky(once) as server:
        store = client.repository(server.host, "a/b")
        for blob in IMAGE.blobs:
            described = Descriptor("application/octet-stream", digest_of(blob.data), len(blob.data))
            store.put_blob(described, reader_of(blob.data), fresh=True)
        store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
        assert server.store.repositories["a/b"].tags["v1"] == IMAGE.digest
        assert not server.once


def test_what_is_compressed_unasked_is_read(client: Client) -> None:
    def compressed(call: Any, path: str) -> bool:
        if call.command != "GET" or not ("/manifests/" in path or "/tags/" in path):
            return False
        body = json.dumps({"name": "a/b", "tags": ["v1"]}).encode() if "/tags/" in path else IMAGE.raw
        media_type = "application/json" if "/tags/" in path else IMAGE.media_type
        call.answer(200, gzip.compress(body), Content_Type=media_type, Content_Encoding="gzip")
        return True

    with Quirky(compressed) as server:
        store = client.repository(server.host, "a/b")
        assert store.get_manifest("v1").raw == IMAGE.raw
        assert list(store.tags()) == ["v1"]


def test_a_head_that_is_redirected_to_a_url_for_get_is_asked_with_get(client: Client) -> None:
    def signed(call: Any, path: str) -> bool:
        if "/blobs/" not in path or call.command not in ("GET", "HEAD") or "uploads" in path:
            return False
        if "X-Amz-Signature" not in call.path:
            call.answer(307, Location=f"{call.path}?X-Amz-Signature=for-get")
            return True
        if call.command == "HEAD":
            raise Refusal(403, "SignatureDoesNotMatch")
        return False

    with Quirky(signed) as server:
        server.store.add_blob("a/b", DATA)
        assert client.repository(server.host, "a/b").blob_size(BLOB.digest) == len(DATA)


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("times", [1, 2])
def test_a_signed_url_that_is_used_up_is_asked_for_once_more(client: Client, status: int, times: int) -> None:
    refused: list[str] = []

    def signed(call: Any, path: str) -> bool:
        if "/blobs/" not in path or call.command != "GET":
            return False
        if "X-Amz-Signature" not in call.path:
            call.answer(307, Location=f"{call.path}?X-Amz-Signature={len(refused)}")
            return True
        if len(refused) < times:
            refused.append(call.path)
            call.answer(status)
            return True
        return False

    with Quirky(signed) as server:
        server.store.add_blob("a/b", DATA)
        chunks = client.repository(server.host, "a/b").read_blob(BLOB)
        with pytest.raises(StoreError) if times == 2 else nullcontext():
            assert b"".join(chunks) == DATA
    assert len(refused) == times


def test_a_head_without_the_length_of_the_blob_is_asked_with_get(client: Client) -> None:
    def empty(call: Any, path: str) -> bool:
        if call.command == "HEAD" and "/blobs/" in path:
            call.answer(200, Content_Length="0")
            return True
        return False

    with Quirky(empty) as server:
        server.store.add_blob("a/b", DATA)
        server.store.add_blob("a/b", b"")
        store = client.repository(server.host, "a/b")
        assert store.blob_size(BLOB.digest) == len(DATA)
        assert store.blob_size(digest_of(b"")) == 0


def test_a_tag_that_only_get_finds_is_verified() -> None:
    def hidden(call: Any, path: str) -> bool:
        if call.command == "HEAD" and "/manifests/" in path:
            call.answer(404)
            return True
        return False

    with Quirky(hidden) as server, session() as shared:
        push(server.url, "a/b", IMAGE, "v1")
        verified = verify_names(shared, Repository(server.host, "a/b"), ["v1", "v2"])
    assert (verified.manifests, verified.absent) == (1, 1)


def test_a_child_of_unknown_media_type_is_still_a_manifest(client: Client) -> None:
    raw = json.loads(index([IMAGE]).raw)
    for media_type in (None, "application/x-unknown"):
        child = {name: value for name, value in raw["manifests"][0].items() if name != "mediaType"}
        body = {**raw, "manifests": [child | ({"mediaType": media_type} if media_type else {})]}
        parsed = parse_manifest(json.dumps(body).encode(), raw["mediaType"])
        assert [one.digest for one in parsed.children] == [IMAGE.digest]
