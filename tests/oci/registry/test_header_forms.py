"""Headers that proxies double, quote or lose, and that registries fill in wrongly (Artifactory, Nexus)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from oci.descriptor import Descriptor
from oci.digest import digest_of
from oci.errors import IntegrityError
from oci.manifest import parse_manifest
from oci.registry.http.body import Headers
from oci.store import BlobOutcome, reader_of
from tests.oci.registry.conftest import Client
from tests.servers.quirky_registry import Quirky
from tests.support.content import image, push

IMAGE = image(8330)
FORMS: dict[str, Callable[[str], str]] = {
    "capitals": lambda digest: f"sha256:{digest[7:].upper()}",
    "two of them": lambda digest: f"{digest}, {digest_of(b'x')}",
    "quoted": lambda digest: f'"{digest}"',
    "cut short": lambda digest: digest[:40],
    "another algorithm": lambda digest: f"sha512:{digest[7:] * 2}",
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_digest_in_a_header_says_nothing(client: Client, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Quirky() as server:
        written = FORMS[form]
        monkeypatch.setattr(
            server.handler, "_headers_of", lambda call, digest: {"Docker_Content_Digest": written(digest)}
        )
        store = client.repository(server.host, "a/b")
        for blob in IMAGE.blobs:
            described = Descriptor("application/octet-stream", digest_of(blob.data), len(blob.data))
            assert store.put_blob(described, reader_of(blob.data), fresh=True) is BlobOutcome.WRITTEN
        store.put_manifest(parse_manifest(IMAGE.raw, IMAGE.media_type), "v1")
        if form != "another algorithm":
            assert store.get_manifest("v1").raw == IMAGE.raw
            head = store.head_manifest("v1")
            assert head is not None
            assert head.digest == IMAGE.digest


@pytest.mark.parametrize("is_right", [True, False], ids=["the bytes are right", "the bytes are wrong"])
def test_a_wrong_digest_in_the_header_of_a_tag(client: Client, is_right: bool) -> None:
    """The registry has the bytes under their own digest when the header is wrong, and hasn't when they are."""
    raw = IMAGE.raw if is_right else IMAGE.raw + b" "

    def wrong(call: Any, path: str) -> bool:
        if call.command != "GET" or not path.endswith("/manifests/v1"):
            return False
        call.answer(200, raw, Content_Type=IMAGE.media_type, Docker_Content_Digest=digest_of(b"another"))
        return True

    with Quirky(wrong) as server:
        push(server.url, "a/b", IMAGE, "v1")
        store = client.repository(server.host, "a/b")
        if is_right:
            assert store.get_manifest("v1").digest == IMAGE.digest
        else:
            with pytest.raises(IntegrityError):
                store.get_manifest("v1")


@pytest.mark.parametrize("media_type", ["text/plain", "application/json", "application/octet-stream", "text/html;a=b"])
def test_a_general_content_type_is_made_good_by_the_content(client: Client, media_type: str) -> None:
    def general(call: Any, path: str) -> bool:
        if "/manifests/" in path:
            call.answer(200, IMAGE.raw, Content_Type=media_type, Docker_Content_Digest=IMAGE.digest)
        return "/manifests/" in path

    with Quirky(general) as server:
        store = client.repository(server.host, "a/b")
        head = store.head_manifest("v1")
        assert head is not None
        assert (head.media_type, head.digest, head.size) == (IMAGE.media_type, IMAGE.digest, len(IMAGE.raw))
        assert store.get_manifest("v1").media_type == IMAGE.media_type


def test_a_field_of_one_value_that_comes_twice_is_one() -> None:
    headers = Headers()
    for name in ("location", "location", "link", "link"):
        headers.add(name, "x")
    headers.add("content-type", "a")
    headers.add("content-type", "b")
    assert headers == {"location": "x", "link": "x, x", "content-type": "a, b"}
