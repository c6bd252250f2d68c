"""Referrers: the API with its filter and pages, and the tag that stands in where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from oci.digest import Digest, digest_of
from oci.errors import Refused, StoreError
from oci.manifest import parse_manifest
from oci.registry.repository import RegistryRepository
from oci.store import reader_of
from tests.faults.proxy import Fault, FaultProxy
from tests.oci.registry.conftest import Client
from tests.servers.docker_registry import DockerRegistry
from tests.servers.quirky_registry import Quirky
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.content import Content, artifact, image, push

BROKEN = Fault(path="/referrers/", replace_body=b'{"manifests": "none"}')
SBOM = "application/vnd.example.sbom"
SIGNATURE = "application/vnd.example.signature"


def put(store: RegistryRepository, content: Content) -> None:
    """Through the client under test, which has to make the referrer known."""
    manifest = parse_manifest(content.raw)
    data = {one.descriptor()["digest"]: one.data for one in content.blobs}
    for blob in manifest.blobs:
        store.put_blob(blob, reader_of(data[blob.digest]))
    store.put_manifest(manifest)


@pytest.mark.parametrize(
    "features", [Features(), Features(page=2), Features(referrers=False)], ids=["API", "pages", "tag"]
)
def test_referrers_are_found_and_filtered(client: Client, features: Features) -> None:
    subject = image(1)
    with StrictRegistry(features) as server:
        push(server.url, "a/b", subject, "v1")
        store = client.repository(server.host, "a/b")
        sboms = [artifact(number, artifact_type=SBOM, subject=subject) for number in range(3)]
        signed = artifact(9, artifact_type=SIGNATURE, subject=subject)
        for content in (*sboms, signed):
            put(store, content)

        every = store.referrers(Digest(subject.digest))
        assert {one.digest for one in every} == {content.digest for content in (*sboms, signed)}
        assert {one.artifact_type for one in every} == {SBOM, SIGNATURE}
        assert all(one.annotations["seed"] for one in every)
        assert [one.digest for one in store.referrers(Digest(subject.digest), SIGNATURE)] == [signed.digest]
        assert store.referrers(Digest(sboms[0].digest)) == ()


def test_an_index_that_can_not_be_read_is_no_empty_list(client: Client) -> None:
    subject = image(1)
    with StrictRegistry() as server, FaultProxy(server.port, BROKEN) as proxy:
        push(server.url, "a/b", subject, "v1")
        store = client.repository(proxy.host, "a/b")

        with pytest.raises(Refused, match="no index of referrers"):
            store.referrers(Digest(subject.digest))


def test_eight_writers_lose_no_referrer_of_the_fallback_tag(
    registry: DockerRegistry, repository: str, make_client: Callable[..., Client]
) -> None:
    subject = image(1)
    push(registry.url, repository, subject, "v1")
    store = make_client().repository(registry.host, repository)
    contents = [artifact(number, subject=subject) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda content: put(store, content), contents))

    answer = httpx.get(
        f"{registry.url}/v2/{repository}/manifests/sha256-{subject.hex}",
        headers={"Accept": "*/*, application/vnd.oci.image.index.v1+json"},
    )
    index: dict[str, Any] = json.loads(answer.content)
    assert {one["digest"] for one in index["manifests"]} == {content.digest for content in contents}
    assert all(one["artifactType"] == SBOM and one["annotations"] for one in index["manifests"])


def test_pushing_a_referrer_again_changes_nothing(registry: DockerRegistry, repository: str, client: Client) -> None:
    subject = image(1)
    push(registry.url, repository, subject, "v1")
    store = client.repository(registry.host, repository)
    content = artifact(1, subject=subject)
    put(store, content)
    before = store.get_manifest(f"sha256-{subject.hex}").digest
    put(store, content)

    assert store.get_manifest(f"sha256-{subject.hex}").digest == before


def test_the_missing_api_is_asked_for_once(client: Client) -> None:
    with StrictRegistry(Features(referrers=False)) as server:
        store = client.repository(server.host, "a/b")
        for number in range(3):
            assert store.referrers(Digest(image(number).digest)) == ()

        assert client.counts["GET referrers"] == 1


LISTED = Descriptor(OCI_MANIFEST, digest_of(b"signature"), 9, artifact_type="application/x")
LIST = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [LISTED.to_dict()]}).encode()


@pytest.mark.parametrize("media_type", ["application/json", "application/json; charset=utf-8", OCI_INDEX])
def test_an_index_under_a_general_type_is_a_list_of_referrers(client: Client, media_type: str) -> None:
    def general(call: Any, path: str) -> bool:
        if "/referrers/" in path:
            call.answer(200, LIST, Content_Type=media_type)
        return "/referrers/" in path

    with Quirky(general) as server:
        store = client.repository(server.host, "a/b")
        assert [one.digest for one in store.referrers(digest_of(b"subject"))] == [LISTED.digest]
        assert store.has_referrers_api


@pytest.mark.parametrize(
    ("media_type", "body"),
    [("text/html", b"<html>"), ("application/json", b"{}"), ("application/json", b"[]"), (OCI_INDEX, b""), ("", b"")],
)
def test_a_page_of_something_else_leads_to_the_fallback_tag(client: Client, media_type: str, body: bytes) -> None:
    def general(call: Any, path: str) -> bool:
        if "/referrers/" in path:
            call.answer(200, body, Content_Type=media_type)
        elif "/manifests/sha256-" in path:
            call.answer(200, LIST, Content_Type=OCI_INDEX)
        else:
            return False
        return True

    with Quirky(general) as server:
        listed = client.repository(server.host, "a/b").referrers(digest_of(b"subject"))
        assert [one.digest for one in listed] == [LISTED.digest]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_a_list_of_referrers_that_breaks_off_is_no_shorter_list(
    make_client: Callable[..., Client], status: int
) -> None:
    def second_page_refused(call: Any, path: str) -> bool:
        if "/referrers/" not in path:
            return False
        if "page" in call.query:
            call.answer(status)
        else:
            call.answer(200, LIST, Content_Type=OCI_INDEX, Link=f'<{path}?page=2>; rel="next"')
        return True

    with Quirky(second_page_refused) as server:
        store = make_client(side="source", retries=0).repository(server.host, "a/b")
        with pytest.raises(StoreError, match="breaks off after 1 referrers"):
            store.referrers(digest_of(b"subject"))


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("denied", [1, 1 << 30], ids=["once", "always"])
def test_a_denial_that_passes_loses_no_referrer(make_client: Callable[..., Client], status: int, denied: int) -> None:
    """A gateway that was out of step for a moment: without the tag that stands in, nothing says that there are none."""
    subject = image(1)
    with StrictRegistry() as server, FaultProxy(server.port) as proxy:
        push(server.url, "a/b", subject, "v1")
        signed = artifact(9, artifact_type=SIGNATURE, subject=subject)
        put(make_client().repository(server.host, "a/b"), signed)
        proxy.rules.append(Fault(path="/referrers/", status=status, last=denied))
        client = make_client(side="source", retries=0)

        listed = client.repository(proxy.host, "a/b").referrers(Digest(subject.digest))

    assert [one.digest for one in listed] == ([signed.digest] if denied == 1 else [])
    said = client.meter.receipt().fallbacks.get(proxy.host, ())
    assert any("the referrers API" in text for text in said) == (denied > 1)
