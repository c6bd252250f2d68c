"""Since when things have been unwanted: a note that the destination itself carries, under a tag of its own.

It serves two ends. A prune that broke off has deleted an index and not yet its children, which carry no tag: then only
the note knows of them. And a grace period must outlive the process that counts it. The destination is what all of them
share, whether a command, a flow or another machine prunes it, and a note that is lost with its repository is lost with
what it spoke of. When something was made or pushed says nothing: an old image may have become unwanted a minute ago.

Two runs at once may overwrite each other's note. Then something counts as unwanted from a later time on, never from an
earlier one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from oci.bundle.tagnames import KEEP_ALIVE_SUFFIX
from oci.descriptor import parse_json
from oci.digest import Digest
from oci.errors import InvalidDocument, NotFound, StoreError
from oci.manifest import artifact_manifest
from oci.store import Destination, push_artifact

TAG = f"transship-unwanted{KEEP_ALIVE_SUFFIX}"
"""Hidden in lists of tags, like others that tools make for themselves, and taken by no mirror."""
ARTIFACT_TYPE = "application/vnd.transship.unwanted.v1+json"
LAYER_TYPE = "application/json"

_LIMIT = 32 << 20


def tag_key(tag: str, digest: Digest) -> str:
    """A tag that moved is another thing."""
    return f"{tag}@{digest}"


def read(destination: Destination) -> dict[str, datetime]:
    """Empty where there is no note. Raises InvalidDocument for one that can't be read."""
    try:
        manifest = destination.get_manifest(TAG)
    except NotFound:
        return {}
    where = f"{destination.name}:{TAG}"
    if manifest.artifact_type != ARTIFACT_TYPE or len(manifest.layers) != 1 or manifest.layers[0].size > _LIMIT:
        raise InvalidDocument(f"{where} is no note of what is unwanted", hint="delete it, and grace periods begin anew")
    data = b"".join(destination.read_blob(manifest.layers[0]))
    try:
        since = {str(key): datetime.fromisoformat(when) for key, when in parse_json(data)["since"].items()}
        return {key: when.astimezone(UTC) for key, when in since.items()}
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise InvalidDocument(f"{where}: {error}", hint="delete it, and grace periods begin anew") from error


def write(destination: Destination, since: Mapping[str, datetime]) -> None:
    """Replaces the note; one that says the same stays untouched, and one that would say nothing is deleted."""
    body = {"since": {key: when.astimezone(UTC).isoformat() for key, when in sorted(since.items())}}
    data = json.dumps(body, indent=0).encode()
    manifest = artifact_manifest(ARTIFACT_TYPE, LAYER_TYPE, data)
    before = destination.head_manifest(TAG)
    if before is not None and before.digest == manifest.digest:
        return
    if since:
        push_artifact(destination, manifest, data, TAG)
    if before is not None:
        with suppress(StoreError):  # an old note is a few bytes that nothing reads
            blobs = destination.get_manifest(before.digest).blobs
            destination.delete_manifest(before.digest)
            destination.sweep({blob.digest for blob in blobs})
