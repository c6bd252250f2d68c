from __future__ import annotations

import json
from typing import Any

import pytest

from oci.descriptor import DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST, Platform
from oci.digest import digest_of
from oci.errors import InvalidManifest, InvalidReference
from oci.manifest import CHILD_LIMIT, parse_manifest

BLOB = digest_of(b"blob")


def entry(**more: Any) -> dict[str, Any]:
    return {"mediaType": "application/octet-stream", "digest": BLOB, "size": 4, **more}


def raw(**body: Any) -> bytes:
    return json.dumps(body).encode()


def test_the_received_bytes_are_kept() -> None:
    data = b'{ "schemaVersion":2,\n "layers":[],  "config":' + json.dumps(entry()).encode() + b"}"

    manifest = parse_manifest(data, OCI_MANIFEST)

    assert manifest.raw == data
    assert manifest.digest == digest_of(data)


@pytest.mark.parametrize(
    ("body", "said", "kind"),
    [
        ({"mediaType": DOCKER_MANIFEST, "config": entry()}, "application/json", DOCKER_MANIFEST),
        ({"config": entry()}, DOCKER_MANIFEST, DOCKER_MANIFEST),
        ({"manifests": []}, "", OCI_INDEX),
        ({"manifests": []}, DOCKER_LIST, DOCKER_LIST),
        ({"layers": []}, "", OCI_MANIFEST),
        ({"layers": []}, f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
    ],
)
def test_the_media_type_in_the_bytes_counts_first(body: dict[str, Any], said: str, kind: str) -> None:
    assert parse_manifest(raw(schemaVersion=2, **body), said).media_type == kind


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (raw(schemaVersion=1, fsLayers=[]), "v1 format"),
        (b"no json", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "manifest: expected an object"),
        (raw(schemaVersion=2), "neither a manifest nor an index"),
        (raw(schemaVersion=2, mediaType="text/plain", layers=[]), "is not a media type of a manifest"),
        (raw(schemaVersion=2, mediaType=OCI_MANIFEST, manifests=[entry()]), "can't list manifests"),
        (raw(schemaVersion=2, mediaType=OCI_INDEX, layers=[entry()]), "can't have layers"),
        (raw(schemaVersion=2, layers=[entry(), entry(size=-1)]), r"layers[1].size: expected a number of bytes"),
        (raw(schemaVersion=2, layers=[entry(size=True)]), r"layers[0].size"),
        (raw(schemaVersion=2, layers=[entry(digest="sha256:../../etc")]), r"layers[0].digest"),
        (raw(schemaVersion=2, manifests=[entry(platform=[])]) and raw(schemaVersion=2, manifests=3), "expected a list"),
        (raw(schemaVersion=2, layers=[entry()] * (CHILD_LIMIT + 1)), "more than 10000 entries"),
    ],
)
def test_a_broken_manifest_names_what_is_wrong(data: bytes, said: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse_manifest(data)

    assert said in str(caught.value)


def test_a_manifest_over_the_limit_is_refused() -> None:
    with pytest.raises(InvalidManifest, match="more than the limit of 10"):
        parse_manifest(raw(schemaVersion=2, layers=[]), limit=10)


def test_artifact_manifests_with_an_empty_config_and_a_subject() -> None:
    body = {
        "mediaType": OCI_MANIFEST,
        "artifactType": "application/vnd.example.sbom",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": BLOB, "size": 2},
        "layers": [entry()],
        "subject": entry(mediaType=OCI_MANIFEST),
        "annotations": {"a": "b"},
    }

    manifest = parse_manifest(raw(schemaVersion=2, **body))

    assert manifest.subject is not None
    assert manifest.descriptor.artifact_type == "application/vnd.example.sbom"
    assert manifest.descriptor.annotations == {"a": "b"}


def test_a_layer_listed_twice_is_one_blob() -> None:
    manifest = parse_manifest(raw(schemaVersion=2, layers=[entry(), entry()], config=entry()))

    assert len(manifest.layers) == 2
    assert len(manifest.blobs) == 1


def test_platforms() -> None:
    assert str(Platform.parse("linux/arm64/v8")) == "linux/arm64/v8"
    assert Platform.parse("linux/arm/v7").matches(Platform.parse("linux/arm"))
    assert not Platform.parse("linux/arm").matches(Platform.parse("linux/arm/v7"))
    with pytest.raises(InvalidReference, match="is not a platform"):
        Platform.parse("linux")


@pytest.mark.parametrize(
    ("config", "diff_ids"),
    [
        ({"rootfs": {"diff_ids": [BLOB, BLOB]}}, (BLOB, BLOB)),
        ({"rootfs": {"diff_ids": [BLOB, "sha256:short"]}}, (BLOB, None)),
        ({"rootfs": {"diff_ids": [7, BLOB]}}, (None, BLOB)),
        ({"rootfs": {"diff_ids": [BLOB]}}, None),
        ({"rootfs": {"diff_ids": None}}, None),
        ({"rootfs": [BLOB, BLOB]}, None),
        ({}, None),
        ([], None),
    ],
)
def test_a_bad_diff_id_is_none_and_so_is_a_list_of_another_length(
    config: Any, diff_ids: tuple[str | None, ...] | None
) -> None:
    manifest = parse_manifest(raw(schemaVersion=2, layers=[entry(), entry()]))

    assert manifest.diff_ids(json.dumps(config).encode()) == diff_ids
    assert manifest.diff_ids(b"no json") is None
