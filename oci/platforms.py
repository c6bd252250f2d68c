"""An index cut down to some of its platforms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from oci.descriptor import Platform, parse_json
from oci.digest import Digest
from oci.errors import InvalidInput, InvalidManifest
from oci.manifest import NESTING_LIMIT, Manifest, parse_manifest
from oci.store import Source

_ATTESTED = "vnd.docker.reference.digest"
"""BuildKit's annotation of an attestation manifest: the digest of the image that it belongs to."""


def narrowed(source: Source, index: Manifest, platforms: Sequence[Platform]) -> tuple[Manifest, ...]:
    """Returns the index, rewritten to have only `platforms`, after the nested indexes that had to be rewritten for it.

    Empty when the index has nothing else. A platform that the index lacks is skipped; raises InvalidInput when it has
    none of them. Attestations stay with the image they belong to.
    """
    forms: dict[Digest, Manifest | None] = {}
    """What becomes of each index: the same, a rewritten one, or None when no platform of it is wanted."""

    def narrow(index: Manifest, depth: int) -> None:
        if depth > NESTING_LIMIT:
            raise InvalidManifest(f"{source.name}@{index.digest}: nested deeper than {NESTING_LIMIT} levels")
        chosen: set[Digest] = set()
        for child in index.children:
            if child.is_index:
                if child.digest not in forms:  # once, however often it is listed
                    try:
                        narrow(source.get_manifest(child.digest), depth + 1)
                    except InvalidInput:
                        forms[child.digest] = None
                if forms[child.digest] is not None:
                    chosen.add(child.digest)
            elif child.platform is None or any(child.platform.matches(platform) for platform in platforms):
                chosen.add(child.digest)
        chosen.update(child.digest for child in index.children if child.annotations.get(_ATTESTED) in chosen)
        if not chosen:
            has = ", ".join(sorted({str(child.platform) for child in index.children if child.platform})) or "none"
            raise InvalidInput(
                f"{source.name}@{index.digest} has no image for {', '.join(map(str, platforms))}; it has {has}",
                hint="choose one of these",
            )
        listed = {child.digest for child in index.children}
        nested = {digest: manifest for digest in listed & chosen if (manifest := forms.get(digest)) is not None}
        same = chosen == listed and all(manifest.digest == digest for digest, manifest in nested.items())
        forms[index.digest] = index if same else _rewrite(index, chosen, nested)

    narrow(index, 0)
    return tuple(manifest for digest, manifest in forms.items() if manifest and manifest.digest != digest)


def _rewrite(index: Manifest, chosen: set[Digest], nested: Mapping[Digest, Manifest]) -> Manifest:
    """Every key and every chosen entry stays as it was, but for digest and size of nested indexes."""
    body = parse_json(index.raw)
    entries = [entry for entry in body["manifests"] if entry["digest"] in chosen]
    for number, entry in enumerate(entries):
        if manifest := nested.get(entry["digest"]):
            entries[number] = {**entry, "digest": manifest.digest, "size": manifest.size}
    raw = json.dumps({**body, "manifests": entries}, separators=(",", ":"), ensure_ascii=False).encode()
    return parse_manifest(raw, index.media_type)
