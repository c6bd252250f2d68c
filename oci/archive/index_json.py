"""`index.json` and the members of a tarred image layout (image-spec, image-layout.md), which skopeo, crane and oras
read as well."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from oci.archive.entry import ArchiveEntry, entry_of, tag_in_name
from oci.bundle import tagnames
from oci.descriptor import OCI_INDEX, Descriptor, as_list, as_media_type, json_object
from oci.digest import Digest, hex_of, is_digest
from oci.errors import IntegrityError, InvalidManifest
from oci.layout.index import REF_NAME
from oci.manifest import MANIFEST_LIMIT, NESTING_LIMIT, Manifest, parse_manifest

MARK = "oci-layout"
INDEX = "index.json"
LIMIT = 16 << 20
"""Bytes of an index.json that is read or written: some 40,000 images."""

_REFERENCE = "dev.transship.reference"
_ORIGIN = "dev.transship.origin"
_ROOT_BUNDLE = "dev.transship.root-bundle"
_MEMBER = re.compile(r"blobs/(sha256|sha512)/([0-9a-f]+)")


def member_name(blob: Digest) -> str:
    return f"blobs/{blob.partition(':')[0]}/{hex_of(blob)}"


def digest_of_member(name: str) -> Digest | None:
    match = _MEMBER.fullmatch(name)
    text = f"{match[1]}:{match[2]}" if match else ""
    return Digest(text) if is_digest(text) else None


def render(entries: Iterable[ArchiveEntry], manifests: Mapping[Digest, Manifest]) -> bytes:
    """Every entry is listed, referrers among them, with its tag for a name, or the one that would hold it in a
    registry: tools that read layouts choose by name. Raises InvalidManifest beyond LIMIT."""
    for manifest in manifests.values():
        if manifest.size > MANIFEST_LIMIT:
            raise InvalidManifest(
                f"the manifest {manifest.digest} has {manifest.size} bytes, and an archive in this form holds "
                f"manifests of {MANIFEST_LIMIT} at most",
                hint="write the archive in imgpkg's form (--tar-format imgpkg)",
            )
    listed: list[dict[str, Any]] = []
    for entry in entries:
        notes = {
            _ORIGIN: entry.origin,
            _REFERENCE: entry.reference,
            REF_NAME: entry.tag or tagnames.keep_alive(entry.digest),
            _ROOT_BUNDLE: "true" if entry.is_root_bundle else "",
        }
        plain = replace(manifests[entry.digest].descriptor, annotations={}).to_dict()
        listed.append({**plain, "annotations": {key: text for key, text in sorted(notes.items()) if text}})
    listed.sort(key=lambda entry: (entry["digest"], entry["annotations"].get(REF_NAME, "")))
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": listed}
    data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) > LIMIT:
        raise InvalidManifest(f"{INDEX} has {len(data)} bytes, and {LIMIT} are the limit", hint="make several archives")
    return data


def parse(index: bytes, read: Callable[[Digest, int], bytes]) -> tuple[list[ArchiveEntry], dict[Digest, Manifest]]:
    """Returns the entries, and every manifest below them; `read` gives the bytes of a small blob. Raises
    InvalidManifest."""
    body = json_object(index, INDEX)
    entries: list[ArchiveEntry] = []
    manifests: dict[Digest, Manifest] = {}
    for number, listed in enumerate(as_list(body.get("manifests"), "manifests")):
        path = f"{INDEX} manifests[{number}]"
        descriptor = Descriptor.from_dict(listed, path)
        as_media_type(descriptor.media_type, f"{path}.mediaType")
        notes = descriptor.annotations
        tag = tag_in_name(notes.get(REF_NAME), f"{path}.annotations[{REF_NAME}]")
        entry = entry_of(
            descriptor.digest,
            f"{path}.annotations",
            reference=notes.get(_REFERENCE),
            origin=notes.get(_ORIGIN),
            tag="" if tagnames.is_internal(tag) else tag,
            is_root_bundle=_ROOT_BUNDLE in notes,
        )
        _collect(descriptor, read, manifests, 0)
        entries.append(entry)
    return entries, manifests


def _collect(
    descriptor: Descriptor, read: Callable[[Digest, int], bytes], manifests: dict[Digest, Manifest], depth: int
) -> None:
    if descriptor.digest in manifests:
        return
    if depth > NESTING_LIMIT:
        raise InvalidManifest(f"{INDEX}: nested deeper than {NESTING_LIMIT} levels")
    raw = read(descriptor.digest, MANIFEST_LIMIT)
    manifest = parse_manifest(raw, descriptor.media_type)
    if manifest.digest != descriptor.digest:
        raise IntegrityError(f"the archive's bytes of {descriptor.digest} have {manifest.digest}")
    manifests[manifest.digest] = manifest
    for child in manifest.child_manifests:
        _collect(child, read, manifests, depth + 1)
