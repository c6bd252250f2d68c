"""Referrers (distribution-spec, end-12): the API where there is one, else the tag that stands in for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from oci.descriptor import OCI_INDEX, Descriptor, parse_json
from oci.digest import Digest
from oci.errors import Denied, InvalidManifest, NotFound, RateLimited, StoreError, Unauthorized, Unavailable
from oci.manifest import Manifest, parse_manifest
from oci.registry import endpoints
from oci.registry.endpoints import GET_REFERRERS, PUT_MANIFEST, RequestTarget
from oci.registry.http.answer import Answer
from oci.registry.http.transport import Remote
from oci.registry.manifests import get_manifest, next_page, put_manifest
from oci.registry.profiles import is_refusal

PAGES_LIMIT = 1000
"""Pages of referrers of one manifest that are read."""

_DENIED = frozenset({401, 403})
"""May be meant for one repository alone, and isn't remembered for the registry (Harbor, proxies with path rules)."""

_BROKEN = "MANIFEST_INVALID"
"""Of an answer that is typed as an index and can't be read as one."""

_ROUNDS = 5
"""How often an update of the fallback tag that another writer undid is made again."""

_tag_locks: dict[tuple[str, str], threading.Lock] = {}
_tag_locks_lock = threading.Lock()


def fallback_tag(subject: Digest) -> str:
    """`sha256-<hex>` (distribution-spec, "Referrers Tag Schema")."""
    algorithm, _, text = subject.partition(":")
    return f"{algorithm[:32]}-{text[:64]}"


def list_referrers(
    remote: Remote, subject: Digest, artifact_type: str = "", *, exhaustive: bool = False
) -> tuple[Descriptor, ...]:
    """From the API; where that is refused or unknown, from the fallback tag. Raises what the registry answers when it
    refuses that as well: a list that can't be read isn't an empty list. An API that denies the list where there is no
    tag is taken for none, and the report says so; with `exhaustive` the denial is raised."""
    learned = remote.learned
    listed: tuple[Descriptor, ...] | None = None
    is_assumed = learned.is_assumed(GET_REFERRERS)  # before what it is about: another thread may learn both meanwhile
    if learned.works(GET_REFERRERS) is False:
        listed = _from_tag(remote, subject)
        if listed is not None or not is_assumed:
            return _filtered(listed or (), artifact_type)
    try:
        descriptors = _from_api(remote, subject, artifact_type)
    except RateLimited:
        raise
    except StoreError as refusal:
        if not refusal.status and isinstance(refusal, Unavailable):
            raise
        try:
            listed = _from_tag(remote, subject)
        except (Denied, Unauthorized):
            if is_refusal(refusal) or refusal.status == 404:
                learned.decline(GET_REFERRERS)  # there is no API, and the tag may just not exist
            raise
        if refusal.status in _DENIED:
            if listed is None:
                with suppress(StoreError):  # once more: a denial that passes would lose signatures
                    return _filtered(_from_api(remote, subject, artifact_type), artifact_type)
                if exhaustive:
                    raise
            way = GET_REFERRERS.plain_way
            learned.note(f"the referrers API of {remote.name.path} refused ({refusal.status}), {way}")
        elif listed is None and (refusal.code == _BROKEN or (refusal.status >= 500 and refusal.status != 501)):
            raise  # the API may be there and out of order: nothing says that there are no referrers
        elif refusal.status == 404:
            learned.decline(GET_REFERRERS)  # as the specification says it of a registry without the API
        else:
            learned.refuse(GET_REFERRERS, refusal)
        return _filtered(listed or (), artifact_type)
    learned.confirm(GET_REFERRERS)
    return _filtered(descriptors, artifact_type)


def add_to_fallback(remote: Remote, manifest: Manifest, subject: Digest) -> None:
    """Makes a pushed manifest known under its subject's fallback tag, for a registry that doesn't do so itself.

    The tag is shared by all referrers of one subject and registries have no compare-and-swap: writers in this process
    take turns, and what another process overwrote is noticed by reading back, and added again. A registry that reads
    `sha256-<hex>` as the digest (GitLab) has no place for such a list, and the report says so.
    """
    tag = fallback_tag(subject)
    with _tag_locks_lock:
        lock = _tag_locks.setdefault((str(remote.name), tag), threading.Lock())
    with lock:
        for _ in range(_ROUNDS):
            index = _current(remote, tag)
            if index.digest == subject:
                remote.learned.note(f"referrers in {remote.name.path} can't be listed: {tag} is read as a digest")
                return
            if any(child.digest == manifest.digest for child in index.children):
                return
            entries = [*(parse_json(index.raw).get("manifests") or ()), manifest.descriptor.to_dict()]
            put_manifest(remote, _index(entries), tag)
    index = _current(remote, tag)
    if not index.children or index.digest == subject:  # what was pushed can't be read back, not even once
        remote.learned.note(f"referrers in {remote.name.path} can't be listed: {tag} is read as a digest")
        return
    if not any(child.digest == manifest.digest for child in index.children):
        message = f"{remote.name}:{tag} is changed by another writer each time"
        refusal = remote.refused(PUT_MANIFEST, message, f"{remote.name}@{manifest.digest}")
        refusal.operation, refusal.retryable = "listing the manifest among the referrers of its subject", True
        raise refusal


def _from_api(remote: Remote, subject: Digest, artifact_type: str) -> list[Descriptor]:
    """A registry that has the API answers 200 with an index even when there are no referrers. Raises StoreError for any
    other answer: NotFound where there is no API, Refused for a page that is something else."""
    target: RequestTarget | None = endpoints.referrers(remote.name, subject, artifact_type)
    descriptors: dict[Digest, Descriptor] = {}
    for _ in range(PAGES_LIMIT):
        if target is None:
            return list(descriptors.values())
        try:
            answer = remote.send(GET_REFERRERS, target, f"{remote.name}@{subject}", retry=True)
            page = _page(answer, remote, subject)
        except StoreError as error:
            if not descriptors or isinstance(error, RateLimited):
                raise
            # The API is there, and the list is longer than this: the fallback tag wouldn't have the rest.
            message = f"the list breaks off after {len(descriptors)} referrers: {error.message}"
            raise remote.transport.error(
                Unavailable, message, f"{remote.name}@{subject}", GET_REFERRERS.operation
            ) from error
        before = len(descriptors)
        descriptors.update((child.digest, child) for child in page)
        following = next_page(answer, target)
        target = None if following == target or (page and len(descriptors) == before) else following
    raise remote.refused(GET_REFERRERS, f"the list has more than {PAGES_LIMIT} pages", f"{remote.name}@{subject}")


def _page(answer: Answer, remote: Remote, subject: Digest) -> tuple[Descriptor, ...]:
    media_type = answer.headers.get("content-type", "")
    # Some say application/json of a right index; others answer any path with a page of their own.
    if not media_type.startswith(OCI_INDEX) and not ("json" in media_type and b'"manifests"' in answer.body):
        raise remote.refused(GET_REFERRERS, "the answer is no index of referrers", f"{remote.name}@{subject}")
    try:
        return parse_manifest(answer.body, OCI_INDEX, limit=len(answer.body)).children
    except InvalidManifest as error:
        message = f"the answer is no index of referrers: {error.message}"
        problem = remote.refused(GET_REFERRERS, message, f"{remote.name}@{subject}")
        problem.code = _BROKEN
        raise problem from error


def _from_tag(remote: Remote, subject: Digest) -> tuple[Descriptor, ...] | None:
    """The referrers that the fallback tag lists; None without the tag. A tag that shows the subject itself is a
    registry's (GitLab) that reads `sha256-<hex>` as the digest."""
    try:
        manifest = get_manifest(remote, fallback_tag(subject))
    except NotFound:
        return None
    except (Denied, Unauthorized) as error:
        if remote.transport.side == "destination":
            return None
        remote.learned.note(f"referrers in {remote.name.path} can't be read: refused ({error.status})")
        raise
    return None if manifest.digest == subject else manifest.children


def _filtered(referrers: Iterable[Descriptor], artifact_type: str) -> tuple[Descriptor, ...]:
    """The filter is ours in any case: a registry may or may not have applied it."""
    return tuple(referrer for referrer in referrers if not artifact_type or referrer.artifact_type == artifact_type)


def _current(remote: Remote, tag: str) -> Manifest:
    try:
        manifest = get_manifest(remote, tag)
    except (Denied, NotFound, Unauthorized):
        return _index([])  # denied where nothing exists: the write itself says what this login may do
    return manifest if manifest.is_index else _index([])


def _index(entries: list[dict[str, Any]]) -> Manifest:
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), OCI_INDEX)
