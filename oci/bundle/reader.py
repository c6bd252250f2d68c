"""Reading bundles out of a store: is it one, what does it list, and what do its locations say."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import TypeAlias

from oci.bundle import tagnames
from oci.bundle.image import LOCATIONS_FILE, is_bundle_config
from oci.bundle.lockfile import ImageLocations, ImagesLock
from oci.descriptor import CONFIG_TYPES, Descriptor
from oci.digest import Chunk, Digest
from oci.errors import Denied, InvalidDocument, InvalidManifest, NotFound, Unauthorized
from oci.manifest import Manifest
from oci.store import Source

CONFIG_LIMIT = 8 << 20
"""Bytes an image config may have to be looked at: a bigger one isn't a bundle's."""

LOCK_LIMIT = 16 << 20
LOCK_PATH = ".imgpkg/images.yml"

BlobBytes: TypeAlias = Callable[[Source, Descriptor], bytes]
"""Reads a small blob whole; it may use a cache."""


def blob_bytes(source: Source, blob: Descriptor) -> bytes:
    return b"".join(source.read_blob(blob))


def is_bundle(source: Source, manifest: Manifest, read: BlobBytes = blob_bytes) -> bool:
    """Returns an image whose config carries the label; its value doesn't matter (imgpkg tests only that the key
    exists)."""
    config = manifest.config
    if config is None or config.media_type not in CONFIG_TYPES or config.size > CONFIG_LIMIT:
        return False
    try:
        return is_bundle_config(read(source, config))
    except InvalidManifest:
        return False


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
