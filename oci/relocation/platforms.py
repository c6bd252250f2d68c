"""Leaving platforms out of an index: the result is another index with another digest, and says so in the plan."""

from __future__ import annotations

import json
from collections.abc import Sequence

from oci.descriptor import Descriptor, Platform
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.manifest import NESTING_LIMIT, Manifest, parse_manifest
from oci.store import Source

_ATTESTED = "vnd.docker.reference.digest"
"""BuildKit's annotation of an attestation manifest: the digest of the image that it belongs to."""


def choose(source: Source, index: Manifest, platforms: Sequence[Platform], depth: int = 0) -> tuple[Manifest, ...]:
    """The index, rewritten to have only `platforms`, after the nested indexes that had to be rewritten for it.

    Empty when the index has nothing else. A platform that the index lacks is skipped; raises InvalidInput when it has
    none of them. Attestations stay with the image they belong to.
    """
    if depth > NESTING_LIMIT:
        raise InvalidInput(f"{source.name}@{index.digest}: nested deeper than {NESTING_LIMIT} levels")
    rewritten: list[Manifest] = []
    replaced: dict[Digest, Manifest | None] = {}
    kept: set[Digest] = set()
    for child in index.children:
        if child.is_index:
            replaced[child.digest] = _nested(source, child, platforms, depth, rewritten)
            if replaced[child.digest] is not None:
                kept.add(child.digest)
        elif child.platform is None or any(child.platform.matches(wanted) for wanted in platforms):
            kept.add(child.digest)
    kept.update(child.digest for child in index.children if child.annotations.get(_ATTESTED) in kept)
    if not kept:
        there = ", ".join(sorted({str(child.platform) for child in index.children if child.platform})) or "none"
        wanted = ", ".join(str(platform) for platform in platforms)
        raise InvalidInput(
            f"{source.name}@{index.digest} has no image for {wanted}; it has {there}", hint="choose one of these"
        )
    if len(kept) == len({child.digest for child in index.children}) and not rewritten:
        return ()
    return (*rewritten, _rewrite(index, kept, replaced))


def _nested(
    source: Source, child: Descriptor, platforms: Sequence[Platform], depth: int, rewritten: list[Manifest]
) -> Manifest | None:
    """The nested index as it stays: the same, a rewritten one, or None when nothing of it is wanted."""
    manifest = source.get_manifest(child.digest)
    try:
        chosen = choose(source, manifest, platforms, depth + 1)
    except InvalidInput:
        return None
    rewritten.extend(chosen)
    return chosen[-1] if chosen else manifest


def _rewrite(index: Manifest, kept: set[Digest], replaced: dict[Digest, Manifest | None]) -> Manifest:
    """Every key and every kept entry stays as it was, but for digest and size of nested indexes."""
    body = json.loads(index.raw)
    entries = []
    for entry in body["manifests"]:
        if entry["digest"] not in kept:
            continue
        nested = replaced.get(entry["digest"])
        entries.append({**entry, "digest": nested.digest, "size": nested.size} if nested else entry)
    raw = json.dumps({**body, "manifests": entries}, separators=(",", ":"), ensure_ascii=False).encode()
    return parse_manifest(raw, index.media_type)
