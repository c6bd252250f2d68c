"""The promises of Source and Destination, kept by every store."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from oci.digest import Digest, digest_of, verified
from oci.errors import CancelToken, IntegrityError, NotFound, Refused, StoreError
from oci.layout.store import LayoutStore
from oci.manifest import Manifest, parse_manifest
from oci.meter import Meter
from oci.reference import LayoutFolder, Repository
from oci.registry.credentials.credential import Credentials
from oci.registry.options import RegistryOptions
from oci.registry.repository import Registries
from oci.store import BlobOutcome, Destination, reader_of
from tests.servers.docker_registry import DockerRegistry
from tests.servers.strict_registry import Features, StrictRegistry
from tests.support.content import Content, artifact, image, index, layer

SWITCHES = [one.name for one in fields(Features) if one.default is True]


def without(feature: str) -> Features:
    off: dict[str, Any] = {feature: False}
    return Features(**off)


STRICT = {"strict": Features(), **{f"strict without {name}": without(name) for name in SWITCHES}}
STORES = ("layout", "docker-registry", "docker-registry with relative URLs", *STRICT)
SMALL = b"small blob"
LARGE = random.Random(5).randbytes(2_500_000)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], str]]:
    """Hosts by the name of a store, started when first asked for."""
    running: dict[str, Any] = {}

    def host(name: str) -> str:
        if name not in running:
            if name in STRICT:
                running[name] = StrictRegistry(STRICT[name])
            else:
                folder = tmp_path_factory.mktemp("registry")
                running[name] = DockerRegistry(folder, relative_urls=name.endswith("URLs"))
            running[name].__enter__()
        return str(running[name].host)

    yield host
    for server in running.values():
        server.__exit__(None, None, None)


@pytest.fixture(params=STORES)
def store(
    request: pytest.FixtureRequest, servers: Callable[[str], str], repository: str, tmp_path: Path
) -> Iterator[Destination]:
    """An empty repository of each kind."""
    if request.param == "layout":
        yield LayoutStore(
            LayoutFolder(str(tmp_path / "layout")), side="destination", meter=Meter(), cancel=CancelToken()
        )
        return
    with Registries(
        side="destination",
        settings=lambda _: RegistryOptions(retries=1),
        credentials=Credentials([]),
        meter=Meter(),
        cancel=CancelToken(),
    ) as registries:
        yield registries.repository(Repository(servers(request.param), repository))


def described(data: bytes) -> Descriptor:
    return Descriptor("application/octet-stream", digest_of(data), len(data))


def put(store: Destination, content: Content, *tags: str) -> Manifest:
    """All of it, children first, the top under each tag or by digest."""
    for one in content.everything():
        for blob in one.blobs:
            store.put_blob(described(blob.data), reader_of(blob.data))
        for tag in (tags or ("",)) if one is content else ("",):
            store.put_manifest(parse_manifest(one.raw, one.media_type), tag)
    return parse_manifest(content.raw, content.media_type)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
def test_a_blob_is_written_once_and_read_back(store: Destination, data: bytes) -> None:
    blob = described(data)
    assert store.blob_size(blob.digest) is None

    assert store.put_blob(blob, reader_of(data)) is BlobOutcome.WRITTEN
    assert store.put_blob(blob, reader_of(data)) is BlobOutcome.SKIPPED

    assert store.blob_size(blob.digest) == len(data)
    assert b"".join(store.read_blob(blob)) == data


def test_any_part_of_a_blob(store: Destination) -> None:
    blob = described(LARGE)
    store.put_blob(blob, reader_of(LARGE))

    for offset, length in ((0, 10), (1_000_000, 1), (2_000_000, None), (len(LARGE) - 1, 1), (5, 2_000_000)):
        end = len(LARGE) if length is None else offset + length
        assert b"".join(store.read_blob(blob, offset, length)) == LARGE[offset:end]


@pytest.mark.parametrize("wrong", [LARGE[:-1] + b"X", LARGE[:-1], LARGE + b"X"], ids=["another", "short", "long"])
def test_wrong_bytes_are_refused_and_nothing_is_left(store: Destination, wrong: bytes) -> None:
    blob = described(LARGE)
    with pytest.raises((IntegrityError, StoreError)):
        store.put_blob(blob, lambda offset: verified(iter((wrong[offset:],)), blob.digest, blob.size))

    assert store.blob_size(blob.digest) is None
    assert store.put_blob(blob, reader_of(LARGE)) is BlobOutcome.WRITTEN


def test_manifests_by_tag_and_by_digest(store: Destination) -> None:
    manifest = put(store, image(1), "v1", "v2")

    for identifier in ("v1", "v2", manifest.digest):
        assert store.get_manifest(identifier) == manifest
        head = store.head_manifest(identifier)
        assert head is not None
        assert (head.media_type, head.digest, head.size) == (OCI_MANIFEST, manifest.digest, manifest.size)


def test_what_is_absent(store: Destination) -> None:
    put(store, image(1), "v1")

    assert store.head_manifest("v2") is None
    assert store.head_manifest(digest_of(b"other")) is None
    for identifier in ("v2", digest_of(b"other")):
        with pytest.raises(NotFound) as caught:
            store.get_manifest(identifier)
        assert caught.value.side == "destination"
    with pytest.raises(NotFound):
        list(store.read_blob(described(b"other")))


def test_a_manifest_comes_back_byte_for_byte(store: Destination) -> None:
    content = image(1)
    odd = json.dumps(json.loads(content.raw), indent=3).encode() + b"\n "
    put(store, Content(content.media_type, odd, content.blobs), "odd")

    assert store.get_manifest("odd").raw == odd
    assert store.get_manifest(digest_of(odd)).raw == odd


def test_what_a_manifest_lists_must_be_there_first(store: Destination) -> None:
    lonely = image(1)
    with pytest.raises(Refused) as caught:
        store.put_manifest(parse_manifest(lonely.raw), "v1")
    assert caught.value.code == "MANIFEST_BLOB_UNKNOWN"
    with pytest.raises(Refused):
        store.put_manifest(parse_manifest(index([lonely]).raw), "v1")

    assert store.head_manifest("v1") is None


def test_a_tag_moves(store: Destination) -> None:
    first, second = put(store, image(1), "latest"), put(store, image(2), "latest")

    assert store.get_manifest("latest") == second
    assert store.get_manifest(first.digest) == first
    assert list(store.tags()) == ["latest"]


def test_nested_indexes(store: Destination) -> None:
    content = index([index([image(1)], ["linux/amd64"]), image(2)])
    manifest = put(store, content, "v1")

    assert manifest.media_type == OCI_INDEX
    for one in content.everything():
        assert store.get_manifest(one.digest).raw == one.raw


def test_tags_beyond_a_page(store: Destination) -> None:
    manifest = put(store, image(1), "first")
    names = [f"v{number:03}" for number in range(120)]
    for name in names:
        store.put_manifest(manifest, name)

    assert sorted(store.tags()) == sorted(["first", *names])


def test_referrers_are_found_after_a_push(store: Destination) -> None:
    subject = image(1)
    put(store, subject, "v1")
    sbom, other = artifact(2, subject=subject), artifact(3, artifact_type="application/vnd.other", subject=subject)
    for content in (sbom, other, sbom):
        put(store, content)

    found = store.referrers(Digest(subject.digest))
    assert {one.digest for one in found} == {sbom.digest, other.digest}
    assert [one.digest for one in store.referrers(Digest(subject.digest), "application/vnd.other")] == [other.digest]
    assert all(one.annotations and one.artifact_type for one in found)
    assert store.referrers(Digest(sbom.digest)) == ()


def test_deleting_a_manifest_takes_its_names_along(store: Destination) -> None:
    manifest = put(store, image(1), "v1", "v2")
    store.delete_manifest(manifest.digest)

    assert store.head_manifest("v1") is None
    assert store.head_manifest(manifest.digest) is None


def test_deleting_a_tag_removes_the_name_alone_or_says_it_cannot(store: Destination) -> None:
    manifest = put(store, image(1), "v1", "v2")
    try:
        store.delete_tag("v1")
    except Refused as error:
        assert "can't delete a tag alone" in str(error)  # noqa: PT017 - either is allowed
        assert store.get_manifest("v1") == manifest
    else:
        assert store.head_manifest("v1") is None

    assert store.get_manifest("v2") == manifest


def test_eight_threads_lose_nothing(store: Destination) -> None:
    shared = layer(9, 200_000)
    contents = [image(100 + number, layers=[shared, layer(200 + number)]) for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        manifests = list(threads.map(lambda one: put(store, one[1], f"v{one[0]}"), enumerate(contents)))

    assert sorted(store.tags()) == [f"v{number}" for number in range(8)]
    for number, manifest in enumerate(manifests):
        assert store.get_manifest(f"v{number}") == manifest
    assert b"".join(store.read_blob(described(shared.data))) == shared.data
