"""Content-Encoding that nobody asked for (RFC 9110, 8.4), in every form, on everything that is read."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import StoreError
from tests.oci.registry.conftest import Client
from tests.servers.quirky_registry import Quirky
from tests.servers.strict_registry import Refusal
from tests.support.content import OCI_LAYER, image

TEXT = b"kind: ConfigMap\n" * 30_000
IMAGE = image(8310)
Make = Callable[..., Client]


def deflated(data: bytes, window: int) -> bytes:
    compressor = zlib.compressobj(wbits=window)
    return compressor.compress(data) + compressor.flush()


def in_two_members(data: bytes) -> bytes:
    return gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "capitals": ("GZip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "twice": ("gzip, gzip", lambda data: gzip.compress(gzip.compress(data))),
    "two codings": ("deflate, gzip", lambda data: gzip.compress(deflated(data, 15))),
    "with identity": ("identity, gzip", gzip.compress),
    "an empty one": ("gzip,", gzip.compress),
    "zlib": ("deflate", lambda data: deflated(data, 15)),
    "deflate without zlib": ("deflate", lambda data: deflated(data, -15)),
    "members": ("gzip", in_two_members),
    "padding": ("gzip", lambda data: gzip.compress(data) + bytes(100)),
    "only the label": ("gzip", bytes),
    "unknown": ("br", bytes),
}


def encoded(form: str, body: bytes, media_type: str, part: str, status: int = 200) -> Callable[[Any, str], bool]:
    """Answers reads of a `part` of the API so."""
    coding, encode = CODINGS[form]

    def quirk(call: Any, path: str) -> bool:
        if call.command == "HEAD" and part == "/blobs/" in path:
            raise Refusal(405, "UNSUPPORTED")
        if call.command != "GET" or part not in path:
            return False
        call.answer(status, encode(body), Content_Type=media_type, Content_Encoding=coding)
        return True

    return quirk


@pytest.mark.parametrize("form", CODINGS)
def test_a_document_is_read(client: Client, form: str) -> None:
    with Quirky(encoded(form, IMAGE.raw, IMAGE.media_type, "/manifests/")) as server:
        store = client.repository(server.host, "a/b")
        assert [store.get_manifest(name).raw for name in ("v1", IMAGE.digest)] == [IMAGE.raw] * 2
    with Quirky(encoded(form, b'{"name":"a/b","tags":["v1"]}', "application/json", "/tags/")) as server:
        assert list(client.repository(server.host, "a/b").tags()) == ["v1"]


@pytest.mark.parametrize("form", CODINGS)
def test_a_blob_is_read_and_measured(client: Client, form: str) -> None:
    blob = Descriptor("application/octet-stream", digest_of(TEXT), len(TEXT))
    with Quirky(encoded(form, TEXT, blob.media_type, "/blobs/")) as server:
        store = client.repository(server.host, "a/b")
        assert b"".join(store.read_blob(blob)) == TEXT
        assert store.blob_size(blob.digest) == len(TEXT)


@pytest.mark.parametrize("form", CODINGS)
def test_the_code_of_an_error_is_found(client: Client, form: str) -> None:
    body = b'{"errors":[{"code":"SPECIAL","message":"not today"}]}'
    with Quirky(encoded(form, body, "application/json", "/manifests/", 400)) as server:
        with pytest.raises(StoreError, match="not today") as caught:
            client.repository(server.host, "a/b").get_manifest("v1")
        assert caught.value.code == "SPECIAL"


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("by_a_proxy", [True, False], ids=["compressed by a proxy", "labelled by an object store"])
def test_the_coding_of_a_layer_that_is_compressed_itself(client: Client, by_a_proxy: bool, chunked: bool) -> None:
    """Without a length, what is below the coding tells whether it was applied on the way, or is the layer's own."""
    layer = gzip.compress(random.Random(8311).randbytes(300_000))
    body = gzip.compress(layer) if by_a_proxy else layer

    def quirk(call: Any, path: str) -> bool:
        if call.command == "HEAD":
            raise Refusal(405, "UNSUPPORTED")
        if not chunked:
            call.answer(200, body, Content_Encoding="gzip")
            return True
        call.send_response(200)
        call.send_header("Content-Encoding", "gzip")
        call.send_header("Transfer-Encoding", "chunked")
        call.end_headers()
        for start in range(0, len(body), 50_000):
            piece = body[start : start + 50_000]
            call.wfile.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
        call.wfile.write(b"0\r\nX-Checksum: none\r\n\r\n")
        return True

    with Quirky(quirk) as server:
        store = client.repository(server.host, "a/b")
        assert b"".join(store.read_blob(Descriptor(OCI_LAYER, digest_of(layer), len(layer)))) == layer
        assert store.blob_size(digest_of(layer)) == len(layer)


def test_members_without_end_are_refused(make_client: Make) -> None:
    body = gzip.compress(b"x") + gzip.compress(b"") * 100_000
    with Quirky(lambda call, path: call.answer(200, body, Content_Encoding="gzip") is None) as server:
        store = make_client(retries=0).repository(server.host, "a/b")
        with pytest.raises(StoreError, match="gzip members"):
            list(store.read_blob(Descriptor("application/octet-stream", digest_of(b"x"), 1)))
