"""What the distribution-spec (1.1) asks of clients, a test for each line of DUTIES.

The specification's own conformance tests are for registries. Section names are those of spec.md.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from oci.descriptor import OCI_INDEX, Descriptor
from oci.digest import Digest, digest_of
from oci.errors import IntegrityError, NotFound, StoreError
from oci.manifest import ACCEPT, parse_manifest
from oci.reference import Repository
from oci.registry.referrers import fallback_tag
from oci.store import BlobOutcome, reader_of
from tests.oci.registry.conftest import Client
from tests.servers.strict_registry import Features, StrictHandler, StrictRegistry
from tests.support.content import artifact, image, push

Make = Callable[..., Client]
DATA = random.Random(11).randbytes(1_000_000)
BLOB = Descriptor("application/octet-stream", digest_of(DATA), len(DATA))
IMAGE = image(8100)
SBOM = artifact(8101, subject=IMAGE)

DUTIES = {
    "Pulling manifests": {
        "Accept has every media type that is understood": "test_manifests_are_asked_for_with_their_types",
        "the body is verified against the digest that was asked for": "test_a_manifest_is_what_was_asked_for",
        "404 means that there is none": "test_what_is_not_there_is_not_found",
    },
    "Pulling blobs": {
        "the body is verified, redirects are followed": "test_a_blob_is_what_was_asked_for",
    },
    "Pushing a blob monolithically": {
        "Location is used as it came, with the digest added": "test_the_location_of_an_upload_is_opaque",
        "single POST: 202 is gone on with": "test_a_session_in_place_of_a_single_post_is_used",
    },
    "Pushing a blob in chunks": {
        "POST with Content-Length 0": "test_chunks_keep_to_the_rules",
        "in order, the first begins at 0, ranges include both ends": "test_chunks_keep_to_the_rules",
        "Content-Length is the chunk's": "test_chunks_keep_to_the_rules",
        "each goes to the Location of the answer before": "test_chunks_keep_to_the_rules",
        "none but the last is shorter than OCI-Chunk-Min-Length": "test_chunks_keep_to_the_rules",
        "the closing PUT has the digest of the whole": "test_chunks_keep_to_the_rules",
        "after 416 the session says how far it got": "test_a_chunk_out_of_order_is_followed_by_a_question",
    },
    "Canceling an upload": {"DELETE when it is given up": "test_what_is_given_up_is_cancelled"},
    "Mounting a blob": {"202 is gone on with": "test_a_mount_that_did_not_happen_is_an_upload"},
    "Pushing manifests": {
        "Content-Type is the mediaType, and the body goes as it is": "test_a_manifest_goes_as_it_is",
        "without OCI-Subject, the list is kept": "test_the_list_of_referrers_is_kept_by_the_client",
    },
    "Listing referrers": {
        "404 leads to the referrers tag": "test_the_list_of_referrers_is_kept_by_the_client",
        "what the registry didn't filter is filtered": "test_filters_are_ours",
    },
    "Listing tags": {"Link is followed until there is none": "test_every_page_is_read"},
    "Deleting": {"404 is success, what isn't supported is said": "test_deleting_what_is_gone"},
    "Error codes": {"unknown ones, and bodies that are none, are errors like others": "test_errors_of_any_form"},
    "Legacy headers": {"none is needed": "test_nothing_depends_on_headers_that_are_optional"},
}


def test_every_duty_has_a_test() -> None:
    assert {name for duties in DUTIES.values() for name in duties.values()} <= set(globals())


class _Recording(StrictHandler):
    def _handle(self) -> None:
        owner: Any = self.registry
        owner.calls.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        super()._handle()

    def answer(self, status: int, body: bytes = b"", /, **headers: str) -> None:
        owner: Any = self.registry
        if "Location" in headers and "/uploads/" in headers["Location"] and owner.opaque:
            owner.number += 1
            headers["Location"] += f"?_state=a%2Fb%3D{owner.number}&empty=&plus=+"
            owner.locations.append(headers["Location"])
        super().answer(status, body, **{name: text for name, text in headers.items() if name not in owner.without})


class Recording(StrictRegistry):
    handler = _Recording

    def __init__(
        self, features: Features | None = None, *, opaque: bool = False, without: tuple[str, ...] = ()
    ) -> None:
        super().__init__(features)
        self.opaque, self.without, self.number = opaque, without, 0
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.locations: list[str] = []

    def sent(self, method: str, path: str) -> list[tuple[str, dict[str, str]]]:
        return [(where, headers) for one, where, headers in self.calls if one == method and re.search(path, where)]


def test_manifests_are_asked_for_with_their_types(client: Client) -> None:
    with Recording() as server:
        push(server.url, "a/b", IMAGE, "v1")
        store = client.repository(server.host, "a/b")
        server.calls.clear()
        store.head_manifest("v1")
        store.get_manifest("v1")
        asked = [
            headers["accept"] for _, headers in server.sent("HEAD", "/manifests/") + server.sent("GET", "/manifests/")
        ]
    assert asked == [ACCEPT, ACCEPT]
    assert {OCI_INDEX, "application/vnd.oci.image.manifest.v1+json"} <= {one.strip() for one in ACCEPT.split(",")}


def test_a_manifest_is_what_was_asked_for(client: Client) -> None:
    with StrictRegistry(Features(digest_header=False)) as server:
        push(server.url, "a/b", IMAGE, "v1")
        media_type, raw = server.store.repositories["a/b"].manifests[IMAGE.digest]
        server.store.repositories["a/b"].manifests[IMAGE.digest] = (media_type, raw.replace(b"{", b"{ ", 1))
        with pytest.raises(IntegrityError):
            client.repository(server.host, "a/b").get_manifest(IMAGE.digest)


def test_what_is_not_there_is_not_found(client: Client) -> None:
    with StrictRegistry() as server:
        store = client.repository(server.host, "a/b")
        assert store.head_manifest("v1") is None
        assert store.blob_size(BLOB.digest) is None
        with pytest.raises(NotFound):
            store.get_manifest("v1")
        with pytest.raises(NotFound):
            b"".join(store.read_blob(BLOB))


def test_a_blob_is_what_was_asked_for(client: Client) -> None:
    with StrictRegistry() as storage, StrictRegistry(Features(blobs_at=storage.url)) as server:
        for one in (server, storage):
            one.store.add_blob("a/b", DATA)
        store = client.repository(server.host, "a/b")
        assert b"".join(store.read_blob(BLOB)) == DATA
        storage.store.blobs[BLOB.digest] = b"X" + DATA[1:]
        with pytest.raises(IntegrityError):
            b"".join(store.read_blob(BLOB))


def test_the_location_of_an_upload_is_opaque(client: Client) -> None:
    with Recording(opaque=True) as server:
        client.repository(server.host, "a/b").put_blob(BLOB, reader_of(DATA), fresh=True)
        closing = [path for path, _ in server.sent("PUT", "/uploads/")]
        assert [path.rpartition("&digest=")[0] for path in closing] == [server.locations[-1]]
        assert parse_qs(urlsplit(closing[0]).query)["digest"] == [BLOB.digest]


def test_a_session_in_place_of_a_single_post_is_used(client: Client) -> None:
    small = b"small"
    with Recording(Features(single_post=False)) as server:
        store = client.repository(server.host, "a/b")
        store.put_blob(Descriptor("application/octet-stream", digest_of(small), 5), reader_of(small), fresh=True)
        assert server.store.blobs[digest_of(small)] == small
        assert not server.store.uploads


@pytest.mark.parametrize("minimum", [0, 300_000])
def test_chunks_keep_to_the_rules(make_client: Make, minimum: int) -> None:
    client = make_client(chunk_size=150_000)
    with Recording(Features(min_chunk=minimum), opaque=True) as server:
        client.repository(server.host, "a/b").put_blob(BLOB, reader_of(DATA), fresh=True)
        assert server.store.blobs[BLOB.digest] == DATA
        patches = server.sent("PATCH", "/uploads/")
        opened = server.sent("POST", "/uploads/")
        closing = server.sent("PUT", "/uploads/")
    assert {headers["content-length"] for _, headers in opened} == {"0"}
    end = -1
    for number, (path, headers) in enumerate(patches):
        found = re.fullmatch(r"([0-9]+)-([0-9]+)", headers["content-range"])
        assert found is not None
        assert int(found.group(1)) == end + 1
        end = int(found.group(2))
        assert int(headers["content-length"]) == end - int(found.group(1)) + 1
        assert headers["content-type"] == "application/octet-stream"
        if number < len(patches) - 1:
            assert int(headers["content-length"]) >= max(150_000, minimum)
        assert path == server.locations[number - len(patches) - 1]
    assert end == len(DATA) - 1
    assert [path.rpartition("&digest=")[0] for path, _ in closing] == [server.locations[-1]]


class _Gap(_Recording):
    def _patch(self, name: str, session: str) -> None:
        owner: Any = self.registry
        if owner.number == 3 and not owner.gap:
            owner.gap = True  # a part of the chunk was lost on the way
            upload = owner.store.uploads[session]
            del upload.data[-1000:]
        super()._patch(name, session)


class Gap(Recording):
    handler = _Gap
    gap = False


def test_a_chunk_out_of_order_is_followed_by_a_question(make_client: Make) -> None:
    client = make_client(chunk_size=150_000)
    with Gap(opaque=True) as server:
        client.repository(server.host, "a/b").put_blob(BLOB, reader_of(DATA), fresh=True)
        assert server.store.blobs[BLOB.digest] == DATA
        assert server.gap
        assert len(server.sent("GET", "/uploads/")) == 1


def test_what_is_given_up_is_cancelled(client: Client) -> None:
    def broken(offset: int) -> Any:
        yield DATA[offset:5000]
        raise StoreError("gone", side="source")

    with Recording() as server:
        with pytest.raises(StoreError, match="gone"):
            client.repository(server.host, "a/b").put_blob(BLOB, broken, fresh=True)
        assert len(server.sent("DELETE", "/uploads/")) == 1
        assert not server.store.uploads


def test_a_mount_that_did_not_happen_is_an_upload(client: Client) -> None:
    with Recording() as server:
        store = client.repository(server.host, "a/b")
        outcome = store.put_blob(BLOB, reader_of(DATA), mount_from=[Repository(server.host, "c/d")], fresh=True)
        assert outcome is BlobOutcome.WRITTEN
        assert server.store.blobs[BLOB.digest] == DATA
        assert len(server.sent("POST", "mount=.*from=c%2Fd")) == 1


def test_a_manifest_goes_as_it_is(client: Client) -> None:
    with Recording() as server:
        push(server.url, "a/b", IMAGE)
        server.calls.clear()
        client.repository(server.host, "a/b").put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
        [(_, headers)] = server.sent("PUT", "/manifests/v1")
        assert headers["content-type"] == json.loads(IMAGE.raw)["mediaType"]
        assert server.store.repositories["a/b"].manifests[IMAGE.digest] == (IMAGE.media_type, IMAGE.raw)


def test_the_list_of_referrers_is_kept_by_the_client(client: Client) -> None:
    with StrictRegistry(Features(referrers=False)) as server:
        push(server.url, "a/b", IMAGE, "v1")
        store = client.repository(server.host, "a/b")
        others = []
        for number in (8102, 8103):
            other = artifact(number, subject=IMAGE)
            for blob in other.blobs:
                server.store.add_blob("a/b", blob.data)
            store.put_manifest(parse_manifest(other.raw, other.media_type))
            others.append(other)
        stored = server.store.repositories["a/b"]
        body = json.loads(stored.manifests[stored.tags[fallback_tag(Digest(IMAGE.digest))]][1])
        assert body["mediaType"] == OCI_INDEX
        assert [one["digest"] for one in body["manifests"]] == [other.digest for other in others]
        for one, other in zip(body["manifests"], others, strict=True):
            raw = json.loads(other.raw)
            assert one["size"] == len(other.raw)
            assert one["artifactType"] == raw.get("artifactType", raw["config"]["mediaType"])
            assert one.get("annotations", {}) == raw.get("annotations", {})
        assert {one.digest for one in store.referrers(Digest(IMAGE.digest))} == {other.digest for other in others}


class _Unfiltered(StrictHandler):
    def _referrers(self, name: str, subject: str) -> None:
        self.query.pop("artifactType", None)
        super()._referrers(name, subject)


class Unfiltered(StrictRegistry):
    handler = _Unfiltered


def test_filters_are_ours(client: Client) -> None:
    with Unfiltered() as server:
        push(server.url, "a/b", IMAGE, "v1")
        push(server.url, "a/b", SBOM)
        store = client.repository(server.host, "a/b")
        [found] = store.referrers(Digest(IMAGE.digest))
        assert [one.digest for one in store.referrers(Digest(IMAGE.digest), found.artifact_type)] == [found.digest]
        assert store.referrers(Digest(IMAGE.digest), "application/x-other") == ()


def test_every_page_is_read(client: Client) -> None:
    with StrictRegistry(Features(page=3)) as server:
        push(server.url, "a/b", IMAGE, *(f"v{number}" for number in range(10)))
        assert sorted(client.repository(server.host, "a/b").tags()) == [f"v{number}" for number in range(10)]


def test_deleting_what_is_gone(client: Client) -> None:
    with StrictRegistry() as server:
        push(server.url, "a/b", IMAGE, "v1")
        store = client.repository(server.host, "a/b")
        for _ in range(2):
            store.delete_manifest(Digest(IMAGE.digest))
        assert IMAGE.digest not in server.store.repositories["a/b"].manifests
    with StrictRegistry(Features(no_deletes=True)) as server:
        push(server.url, "a/b", IMAGE, "v1")
        with pytest.raises(StoreError, match="405"):
            client.repository(server.host, "a/b").delete_manifest(Digest(IMAGE.digest))


@pytest.mark.parametrize(
    "body",
    [b'{"errors":[{"code":"SOMETHING_NEW","message":"why"}]}', b'{"errors":"x"}', b"<html>", b"[]", b"", b"\xff{"],
)
def test_errors_of_any_form(client: Client, body: bytes) -> None:
    class Broken(StrictHandler):
        def _route(self, path: str) -> None:
            self._drain()
            self.answer(400, body, Content_Type="application/json")

    class Server(StrictRegistry):
        handler = Broken

    with Server() as server, pytest.raises(StoreError, match="400") as caught:
        client.repository(server.host, "a/b").get_manifest("v1")
    assert ("SOMETHING_NEW" in str(caught.value)) == (b"SOMETHING_NEW" in body)


def test_nothing_depends_on_headers_that_are_optional(client: Client) -> None:
    with Recording(without=("Docker_Content_Digest", "Range")) as server:
        push(server.url, "a/b", IMAGE, "v1")
        store = client.repository(server.host, "a/b")
        store.put_blob(BLOB, reader_of(DATA), fresh=True)
        found = store.head_manifest("v1")
        assert found is not None
        assert found.digest == IMAGE.digest
        assert store.get_manifest(found.digest).raw == IMAGE.raw
        assert b"".join(store.read_blob(BLOB)) == DATA
