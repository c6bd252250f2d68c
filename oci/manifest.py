"""Manifests and indexes: parsed once into a frozen view, with the received bytes kept (image-spec, manifest.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from oci.descriptor import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    Descriptor,
    as_annotations,
    as_list,
    as_text,
    json_object,
    parse_json,
)
from oci.digest import Digest, digest_of, is_digest
from oci.errors import InvalidManifest

MANIFEST_LIMIT = 4 << 20
"""Bytes a manifest may have unless a setting says otherwise: what registries commonly accept."""

RAISE_LIMIT = "raise --registry-manifest-limit (`manifest_limit` in mirrors.yaml and forms) if it is to be trusted"

CREATED = "org.opencontainers.image.created"
"""The annotation with the time of an image (image-spec, annotations.md)."""

CHILD_LIMIT = 10_000
"""Children an index, or layers a manifest, may list."""

NESTING_LIMIT = 8
"""Indexes inside indexes, and bundles inside bundles, that are followed."""


class Manifest(Struct, frozen=True):
    """An image manifest or an index. `raw` are the bytes as received: they are what is pushed, never a rewrite.

    `config` and `layers` are empty for an index, `children` for an image manifest.
    """

    raw: bytes
    media_type: str
    digest: Digest
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Manifest({self.media_type}, {self.digest}, {self.size} bytes)"

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def size(self) -> int:
        return len(self.raw)

    @property
    def descriptor(self) -> Descriptor:
        """As a referrers list carries it: the artifact type falls back to the config's media type (image-spec)."""
        artifact_type = self.artifact_type or (self.config.media_type if self.config else "")
        return Descriptor(
            self.media_type, self.digest, self.size, annotations=self.annotations, artifact_type=artifact_type
        )

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Layers in manifest order, then the config; a digest that is listed twice comes once."""
        listed = (*self.layers, self.config) if self.config else self.layers
        return tuple({blob.digest: blob for blob in listed}.values())

    @property
    def child_manifests(self) -> tuple[Descriptor, ...]:
        return tuple(child for child in self.children if child.names_manifest)

    @property
    def child_blobs(self) -> tuple[Descriptor, ...]:
        return tuple(child for child in self.children if not child.names_manifest)

    def diff_ids(self, config: bytes) -> tuple[Digest | None, ...] | None:
        """Returns what the layers are when they are unpacked, by the image's config (image-spec, config.md): a digest
        for each layer, or None for what is no digest. None where the config doesn't list as many as there are
        layers."""
        try:
            listed = parse_json(config)["rootfs"]["diff_ids"]
        except (ValueError, TypeError, KeyError):
            return None
        if not isinstance(listed, list) or len(listed) != len(self.layers):
            return None
        return tuple(Digest(item) if isinstance(item, str) and is_digest(item) else None for item in listed)


def parse_manifest(raw: bytes, media_type: str = "", *, limit: int = MANIFEST_LIMIT) -> Manifest:
    """Reads OCI and Docker v2s2 manifests and indexes.

    `media_type` is what the store said; when empty or generic, the bytes decide. Raises InvalidManifest for schema 1,
    for anything that isn't a manifest, and beyond `limit` bytes or CHILD_LIMIT entries.
    """
    if len(raw) > limit:
        raise InvalidManifest(
            f"the manifest has {len(raw)} bytes, more than the limit of {limit}",
            hint=f"copy it between registries alone, and {RAISE_LIMIT}",
        )
    body = json_object(raw, "manifest", name="the manifest")
    kind = _media_type(body, media_type.partition(";")[0].strip())
    for key in ("layers", "manifests"):
        if (count := len(as_list(body.get(key), key))) > CHILD_LIMIT:
            raise InvalidManifest(
                f"{key}: {count} are listed, and more than {CHILD_LIMIT} entries aren't read",
                hint="no setting raises this: an image of so many is broken, or an attack",
            )
    is_index = kind in INDEX_TYPES
    subject = body.get("subject")
    return Manifest(
        raw=raw,
        media_type=kind,
        digest=digest_of(raw),
        config=None if is_index or not body.get("config") else Descriptor.from_dict(body["config"], "config"),
        layers=() if is_index else _descriptors(body, "layers"),
        children=_descriptors(body, "manifests") if is_index else (),
        subject=Descriptor.from_dict(subject, "subject") if subject else None,
        artifact_type=as_text(body.get("artifactType", ""), "artifactType"),
        annotations=as_annotations(body.get("annotations"), "annotations"),
    )


def _media_type(body: dict[str, Any], content_type: str) -> str:
    if body.get("schemaVersion") == 1 or content_type in SCHEMA1_TYPES:
        raise InvalidManifest(
            "this is a Docker schema 1 (v1 format) manifest, which is not supported",
            hint="pull and push the image with a current tool to convert it",
        )
    written = as_text(body.get("mediaType", ""), "mediaType")
    for candidate in (written, content_type):
        if candidate in MANIFEST_TYPES or candidate in INDEX_TYPES:
            # A document that is a manifest to one reader and an index to another is an attack (image-spec advisory).
            if candidate in MANIFEST_TYPES and body.get("manifests"):
                raise InvalidManifest(f"a manifest ({candidate}) can't list manifests")
            if candidate in INDEX_TYPES and (body.get("layers") or body.get("config")):
                raise InvalidManifest(f"an index ({candidate}) can't have layers or a config")
            return candidate
    if written:
        raise InvalidManifest(f"{written!r} is not a media type of a manifest or an index")
    if "manifests" in body:
        return OCI_INDEX
    if "layers" in body or "config" in body:
        return OCI_MANIFEST
    raise InvalidManifest(f"neither a manifest nor an index (media type {content_type or 'not given'!r})")


def _descriptors(body: dict[str, Any], key: str) -> tuple[Descriptor, ...]:
    return tuple(
        Descriptor.from_dict(entry, f"{key}[{number}]") for number, entry in enumerate(as_list(body.get(key), key))
    )


ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"
"""The Accept header of manifest requests: docker-registry answers 404 or converts when a type isn't listed."""


EMPTY_CONFIG = b"{}"


def artifact_manifest(artifact_type: str, layer_type: str, data: bytes, **more: Any) -> Manifest:
    """Makes the manifest of an artifact whose only layer is `data`, with the empty config (image-spec, "Guidelines for
    Artifact Usage"). `more` are members after these, in their order."""
    body = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": artifact_type,
        "config": Descriptor(OCI_EMPTY, digest_of(EMPTY_CONFIG), len(EMPTY_CONFIG)).to_dict(),
        "layers": [Descriptor(layer_type, digest_of(data), len(data)).to_dict()],
        **more,
    }
    return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), OCI_MANIFEST)
