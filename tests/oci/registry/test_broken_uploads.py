"""Uploads that registries lose, miscount, finish without saying so, or only claim to have."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.manifest import parse_manifest
from oci.reference import Repository
from oci.registry import endpoints
from oci.store import BlobOutcome, reader_of
from tests.oci.registry.conftest import Client
from tests.servers.quirky_registry import Quirky
from tests.servers.strict_registry import Refusal
from tests.support.content import image

DATA = random.Random(8320).randbytes(400_000)
LARGE = random.Random(8321).randbytes(3_000_000)
IMAGE = image(8322)
Make = Callable[..., Client]


def described(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def uploaded(client: Client, server: Quirky, data: bytes = DATA) -> None:
    store = client.repository(server.host, "a/b")
    assert store.put_blob(described(data), reader_of(data), fresh=True) is BlobOutcome.WRITTEN
    assert server.store.blobs[digest_of(data)] == data


@pytest.mark.parametrize("body", [b"404 page not found", b'{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}'])
@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("lost_at", ["the only PUT", "the second PATCH", "the closing PUT"])
def test_a_session_that_is_lost_begins_anew_in_whatever_words(
    make_client: Make, lost_at: str, status: int, body: bytes
) -> None:
    patches: list[str] = []

    def lost(call: Any, path: str) -> bool:
        if call.command == "PATCH":
            patches.append(path)
        hit = len(patches) == 2 if lost_at == "the second PATCH" else call.command == "PUT"
        if not hit or not call.registry.first():
            return False
        call._drain()
        server.store.uploads.clear()
        call.answer(status, body)
        return True

    with Quirky(lost) as server:
        client = make_client(chunk_size=0 if lost_at == "the only PUT" else 100_000)
        uploaded(client, server)
        assert not server.once
        assert client.registries.transport(server.host).learned.works(endpoints.PATCH_UPLOAD) is not False


@pytest.mark.parametrize("stated", ["0-{size}", "0-{less}", "bytes 0-{last}", "bytes=0-{last}", ""])
def test_an_upload_goes_on_whatever_the_registry_says_has_arrived(
    make_client: Make, stated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many, too few, in another form, or nothing: the chunk that follows doesn't fit, and not for ever."""

    def cut(call: Any, path: str) -> bool:
        if call.command != "PATCH" or not any(len(one.data) >= 200_000 for one in server.store.uploads.values()):
            return False
        if not call.registry.first():
            return False
        call._length_left -= 50_000  # what comes after is cut off
        next(iter(server.store.uploads.values())).data += call._read()
        call.close_connection = True
        raise ConnectionError("cut off")

    def progress(call: Any, status: int, name: str, session: str) -> None:
        size = len(call.registry.store.uploads[session].data)
        text = stated.format(size=size, last=max(0, size - 1), less=max(0, size - 1001))
        call.answer(status, Location=f"/v2/{name}/blobs/uploads/{session}", **({"Range": text} if text else {}))

    with Quirky(cut) as server:
        monkeypatch.setattr(server.handler, "_progress", progress)
        uploaded(make_client(chunk_size=100_000, retries=3), server)
        assert not server.once


@pytest.mark.parametrize("answer", ["none", "502", "504", "404"])
def test_a_blob_that_arrived_although_its_answer_was_lost_is_not_sent_again(make_client: Make, answer: str) -> None:
    """A gateway gives up while the registry puts 20 GB together, and the session is gone."""
    closed: list[str] = []

    def lost(call: Any, path: str) -> bool:
        if call.command != "PUT":
            return False
        closed.append(path)
        server.store.add_blob("a/b", call._read())
        server.store.uploads.clear()
        if answer == "none":
            call.close_connection = True
        else:
            call.answer(int(answer))
        return True

    with Quirky(lost) as server:
        uploaded(make_client(retries=2), server, LARGE)
    assert len(closed) == 1


def test_what_an_earlier_run_saw_of_chunks_is_doubted_where_nothing_else_is_left(make_client: Make) -> None:
    """PATCH was refused yesterday; today a proxy refuses whole bodies, and chunks get through."""

    def narrow(call: Any, path: str) -> bool:
        if call.command == "PUT" and call._length_left > 1_000_000:
            raise Refusal(413, "SIZE_INVALID")
        return False

    with Quirky(narrow) as server:
        client = make_client()
        learned = client.registries.transport(server.host).learned
        learned._assumed[endpoints.PATCH_UPLOAD] = learned._works[endpoints.PATCH_UPLOAD] = False
        uploaded(client, server, LARGE)
        assert learned.works(endpoints.PATCH_UPLOAD) is not False


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 422, 500])
@pytest.mark.parametrize("code", ["MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID", "LayersNotFoundException", ""])
def test_a_manifest_refused_after_a_mount_that_lied_gets_its_blobs(make_client: Make, status: int, code: str) -> None:
    def lies(call: Any, path: str) -> bool:
        if call.command == "POST" and "mount" in call.query:
            call._drain()
            call.answer(201, Location=f"/v2/a/b/blobs/{call.query['mount']}")
            return True
        there = server.store.repository("a/b").blobs
        if (
            "/manifests/" not in path
            or call.command != "PUT"
            or {digest_of(blob.data) for blob in IMAGE.blobs} <= there
        ):
            return False
        raise Refusal(status, code)

    with Quirky(lies) as server:
        store = make_client(retries=0).repository(server.host, "a/b")
        for blob in IMAGE.blobs:
            mount_from = [Repository(server.host, "c/d")]
            store.put_blob(described(blob.data), reader_of(blob.data), mount_from=mount_from, fresh=True)
        store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
        assert server.store.repositories["a/b"].tags["v1"] == IMAGE.digest


@pytest.mark.parametrize("source", ["a/b", "c/d"])
def test_a_mount_of_another_blob_is_none(make_client: Make, source: str) -> None:
    def another(call: Any, path: str) -> bool:
        if call.command != "POST" or "mount" not in call.query:
            return False
        call._drain()
        call.answer(201, Location=f"/v2/a/b/blobs/{digest_of(b'x')}", Docker_Content_Digest=digest_of(b"x"))
        return True

    with Quirky(another) as server:
        store = make_client().repository(server.host, "a/b")
        mount_from = [Repository(server.host, source)]
        assert store.put_blob(described(DATA), reader_of(DATA), mount_from=mount_from) is BlobOutcome.WRITTEN
        assert server.store.blobs[digest_of(DATA)] == DATA
