"""Which files of a layout are in use: what its manifests list, and what may list something and can't be read here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from oci.descriptor import SCHEMA1_TYPES, Descriptor, as_object, parse_json
from oci.digest import Digest, is_digest, parse_digest
from oci.errors import InvalidManifest, NotFound
from oci.manifest import MANIFEST_LIMIT, Manifest, parse_manifest

_WRITTEN = re.compile(rb"(?<![\w+.-])[a-z0-9]{2,16}:[0-9a-f]{64,128}(?![\w])")


def used_digests(sizes: Mapping[Digest, int], read: Callable[[Digest], bytes], listed: Iterable[Digest]) -> set[Digest]:
    """Returns the manifests among files of these sizes, and the digests that they list.

    What index.json or an index lists and `parse_manifest` doesn't know (Docker's schema 1, the artifact manifest of
    image-spec's release candidates, a type to come) is in use with every digest that is written in it.
    """
    used: set[Digest] = set()
    pending = list(listed)
    manifests: dict[Digest, Manifest] = {}
    for digest, size in sizes.items():
        if size <= MANIFEST_LIMIT and (manifest := _parsed(digest, read)):
            manifests[digest] = manifest
            used.update((digest, *(blob.digest for blob in (*manifest.blobs, *manifest.children))))
            pending.extend(child.digest for child in manifest.children)
    strange: set[Digest] = set()
    while pending:
        digest = pending.pop()
        if digest not in sizes or digest in manifests or digest in strange:
            continue
        strange.add(digest)
        if sizes[digest] <= MANIFEST_LIMIT:
            texts = {text.decode() for text in _WRITTEN.findall(read(digest))}
            pending.extend(parse_digest(text) for text in texts if is_digest(text))
    return used | strange


def _parsed(digest: Digest, read: Callable[[Digest], bytes]) -> Manifest | None:
    try:
        return parse_manifest(read(digest))
    except (InvalidManifest, NotFound):
        return None


def described(digest: Digest, listed_type: str, raw: bytes) -> Descriptor | None:
    """Returns the descriptor of a manifest of a kind that `parse_manifest` doesn't know. Its media type is that of
    index.json, or that in its bytes; None where neither has any."""
    try:
        body = as_object(parse_json(raw), "manifest")
    except (ValueError, InvalidManifest):
        body = {}
    written = body.get("mediaType")
    by_version = SCHEMA1_TYPES[0] if body.get("schemaVersion") == 1 else ""
    media_type = listed_type or (written if isinstance(written, str) else by_version)
    return Descriptor(media_type, digest, len(raw)) if media_type else None
