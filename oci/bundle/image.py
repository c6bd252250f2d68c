"""The one-layer image that holds a bundle, plain files or locations: config and manifest, byte for byte imgpkg's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from oci.bundle.lockfile import ImageLocations
from oci.descriptor import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    as_object,
    parse_json,
)
from oci.digest import Digest, digest_of
from oci.errors import InvalidInput, InvalidManifest
from oci.manifest import Manifest, parse_manifest

LOCATIONS_FILE = "image-locations.yml"
BUNDLE_LABEL = "dev.carvel.imgpkg.bundle"
NOT_A_BUNDLE = "Expected bundle image but found plain image (hint: Did you use -i instead of -b?)"
AS_IMAGE, AS_BUNDLE = "ask for it as an image, not as a bundle", "ask for it as a bundle, not as an image"
"""Next steps that hold for a flag, and for a field of a form."""

_EPOCH = "0001-01-01T00:00:00Z"
_AUTHOR = "imgpkg"
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


class BuiltImage(Struct, frozen=True):
    """An image that exists nowhere yet: its manifest, and each of its blobs with its bytes."""

    manifest: Manifest
    blobs: tuple[tuple[Descriptor, bytes], ...]


def single_layer_image(
    layer: Digest, size: int, diff_id: Digest, labels: Mapping[str, str], *, oci_types: bool = False
) -> tuple[Manifest, bytes, Descriptor]:
    """Returns the manifest, the config and the config's descriptor, for a gzip layer of `size` bytes.

    `diff_id` is the digest of the layer's tar. imgpkg copies bundles with Docker's media types only; with `oci_types`
    it can pull them but not copy them.
    """
    manifest_type, config_type, layer_type = (
        (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER_GZIP) if oci_types else (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER)
    )
    config = _json(
        {
            "architecture": "",
            "created": _EPOCH,
            "history": [{"author": _AUTHOR, "created": _EPOCH, "created_by": _AUTHOR}],
            "os": "",
            "rootfs": {"type": "layers", "diff_ids": [diff_id]},
            "config": {"Labels": dict(sorted(labels.items()))} if labels else {},
        }
    )
    descriptor = Descriptor(config_type, digest_of(config), len(config))
    raw = _json(
        {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": {"mediaType": config_type, "size": len(config), "digest": descriptor.digest},
            "layers": [{"mediaType": layer_type, "size": size, "digest": layer}],
        }
    )
    return parse_manifest(raw, manifest_type), config, descriptor


def locations_image(locations: ImageLocations) -> BuiltImage:
    """Returns the image that holds the locations of a bundle, under the tag that `oci.bundle.tagnames.locations` gives:
    the same bytes imgpkg makes from the same entries."""
    from oci.files import tar  # noqa: PLC0415 - only a bundle that is copied gets one
    from oci.files.deflate import compress  # noqa: PLC0415

    body = locations.to_yaml().encode()
    archive = b"".join(
        (
            tar.header(".", mode=0o700, size=0, typeflag=tar.FOLDER),
            tar.header(LOCATIONS_FILE, mode=0o600, size=len(body)),
            body,
            tar.padding(len(body)),
            tar.END,
        )
    )
    data = b"".join(compress([archive]))
    layer = Descriptor(DOCKER_LAYER, digest_of(data), len(data))
    manifest, config, config_descriptor = single_layer_image(layer.digest, layer.size, digest_of(archive), {})
    return BuiltImage(manifest, ((layer, data), (config_descriptor, config)))


def is_bundle_config(config: bytes) -> bool:
    """Says whether an image config marks a bundle: the label's key decides, whatever its value.

    Raises InvalidManifest for a config that isn't one.
    """
    try:
        body = as_object(parse_json(config), "config")
    except ValueError as error:
        raise InvalidManifest("the image config is not JSON") from error
    inner = as_object(body.get("config") or {}, "config.config")
    return BUNDLE_LABEL in as_object(inner.get("Labels") or {}, "config.config.Labels")


def _json(value: Any) -> bytes:
    """Compact, and with the signs escaped that Go's encoder escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("a label holds something that isn't Unicode") from error
