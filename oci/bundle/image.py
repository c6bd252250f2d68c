"""The image that holds a bundle, plain files or locations: made, byte for byte as imgpkg makes it, and read out of a
store: is it a bundle, what does it list, and what do its locations say."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from msgspec import Struct

from oci.bundle import tagnames
from oci.bundle.lockfile import ImageLocations, ImagesLock
from oci.descriptor import (
    CONFIG_TYPES,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    parse_json,
)
from oci.digest import Chunk, Digest, digest_of
from oci.errors import Denied, InvalidDocument, InvalidInput, InvalidManifest, NotFound, Unauthorized
from oci.manifest import Manifest, parse_manifest
from oci.store import Source

LOCATIONS_FILE = "image-locations.yml"
BUNDLE_LABEL = "dev.carvel.imgpkg.bundle"
NOT_A_BUNDLE = "Expected bundle image but found plain image (hint: Did you use -i instead of -b?)"
AS_IMAGE, AS_BUNDLE = "ask for it as an image, not as a bundle", "ask for it as a bundle, not as an image"
"""Next steps that hold for a flag, and for a field of a form."""

CONFIG_LIMIT = 8 << 20
"""Bytes an image config may have to be looked at: a bigger one isn't a bundle's."""

LOCK_LIMIT = 16 << 20
LOCK_PATH = ".imgpkg/images.yml"

BlobBytes: TypeAlias = Callable[[Source, Descriptor], bytes]
"""Reads a small blob whole; it may use a cache."""

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


def _json(value: Any) -> bytes:
    """Compact, and with the signs escaped that Go's encoder escapes."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_ESCAPES)
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput("a label holds something that isn't Unicode") from error


def blob_bytes(source: Source, blob: Descriptor) -> bytes:
    return b"".join(source.read_blob(blob))


def is_bundle(source: Source, manifest: Manifest, read: BlobBytes = blob_bytes) -> bool:
    """Says whether an image's config carries the label, as imgpkg does."""
    config = manifest.config
    if config is None or config.media_type not in CONFIG_TYPES or config.size > CONFIG_LIMIT:
        return False
    return is_bundle_config(read(source, config))


def is_bundle_config(config: bytes) -> bool:
    """Says whether an image config marks a bundle: the label's key decides, whatever its value."""
    try:
        labels = parse_json(config)["config"]["Labels"]
    except (ValueError, TypeError, KeyError):
        return False
    return isinstance(labels, dict) and BUNDLE_LABEL in labels


def read_images_lock(source: Source, manifest: Manifest, read: BlobBytes = blob_bytes) -> ImagesLock:
    """The ImagesLock in the topmost layer that has one. Every layer is read to its end, so that it is proven."""
    where = f"{source.name}@{manifest.digest}"
    for layer in reversed(manifest.layers):
        lock = _member(source, layer, LOCK_PATH.__eq__, read)
        if lock is not None:
            return pushed_lock(lock, where)
    raise InvalidManifest(
        f"{where}: expected to find {LOCK_PATH} in the bundle's layer", hint="push the bundle again from its directory"
    )


def pushed_lock(data: bytes, bundle: str) -> ImagesLock:
    """Returns the lock that came out of `bundle`. Raises InvalidManifest: its reader can't mend it."""
    try:
        return ImagesLock.from_yaml(data, f"{bundle} {LOCK_PATH}")
    except InvalidDocument as error:
        raise InvalidManifest(error.message, hint=error.hint) from error


def read_locations(source: Source, bundle: Digest, read: BlobBytes = blob_bytes) -> ImageLocations | None:
    """Returns what the locations image of a bundle says, or None when there is none that can be read.

    Locations are a hint: one that is broken, or that we aren't allowed to see, counts as none.
    """
    try:
        manifest = source.get_manifest(tagnames.locations(bundle))
        for layer in manifest.layers:
            # imgpkg looks for the base name only.
            locations = _member(source, layer, lambda name: name.rpartition("/")[2] == LOCATIONS_FILE, read)
            if locations is not None:
                return ImageLocations.from_yaml(locations, f"{source.name}:{tagnames.locations(bundle)}")
    except (NotFound, Unauthorized, Denied, InvalidDocument, InvalidManifest):
        return None
    return None


def _member(source: Source, layer: Descriptor, is_member: Callable[[str], bool], read: BlobBytes) -> bytes | None:
    """Returns a file inside a layer. A small layer is read through `read`, for it may be needed again."""
    chunks = iter((read(source, layer),)) if layer.size <= CONFIG_LIMIT else source.read_blob(layer)
    member = read_member(chunks, is_member, LOCK_LIMIT)
    for _ in chunks:
        pass
    return member


def read_member(chunks: Iterator[Chunk], is_member: Callable[[str], bool], limit: int) -> bytes | None:
    """The first regular file of a layer whose name `is_member` accepts, or None; reads `chunks` no further than needed.

    `is_member` gets clean names: `/` between segments, no `./` or `/` in front. The layer may be gzip, zstd or plain.
    Raises InvalidManifest for a layer that can't be read, or a file of more than `limit` bytes. Before it blames the
    layer it reads `chunks` to the end, so that a verifying stream can say that the bytes were the wrong ones.
    """
    from oci.files.decompress import decompressed  # noqa: PLC0415 - a plain image has no layer that is looked into
    from oci.files.tar import REGULAR, Members  # noqa: PLC0415

    try:
        members = Members(decompressed(chunks))
        for member in members:
            # The path from the layer's root. Layers built on Windows have backslashes between segments.
            name = member.name.decode("utf-8", "surrogateescape").replace("\\", "/")
            name = posixpath.normpath(name).lstrip("/")
            if member.kind == REGULAR and is_member(name):
                if member.size > limit:
                    message = f"{name} has {member.size} bytes, more than the limit of {limit}"
                    raise InvalidManifest(message)  # noqa: TRY301 - as all other damage
                return b"".join(members.data())
    except InvalidManifest:
        for _ in chunks:
            pass
        raise
    return None
