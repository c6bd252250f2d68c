"""Referrers (distribution-spec, end-12): the API where there is one, else the tag that stands in for it."""

from __future__ import annotations

import json
import threading
from typing import Any

from oci.descriptor import OCI_INDEX, Descriptor
from oci.digest import Digest
from oci.errors import NotFound, Refused, StoreError
from oci.manifest import Manifest, parse_manifest
from oci.reference import Repository
from oci.registry.capabilities import Capabilities
from oci.registry.http import target as targets
from oci.registry.http.answer import Answer
from oci.registry.http.request import Request, Scope
from oci.registry.http.target import Target
from oci.registry.http.transport import Transport
from oci.registry.manifests import get_manifest, put_manifest
from oci.registry.tags import next_page

_ROUNDS = 5
"""How often an update of the fallback tag that another writer undid is made again."""

_tag_locks: dict[tuple[str, str], threading.Lock] = {}
_tag_locks_lock = threading.Lock()


def fallback_tag(subject: Digest) -> str:
    """`sha256-<hex>` (distribution-spec, "Referrers Tag Schema")."""
    algorithm, _, text = subject.partition(":")
    return f"{algorithm[:32]}-{text[:64]}"


def list_referrers(
    transport: Transport, name: Repository, capabilities: Capabilities, subject: Digest, artifact_type: str
) -> tuple[Descriptor, ...]:
    if capabilities.referrers_api is not False:
        found = _from_api(transport, name, subject, artifact_type)
        if found is not None:
            capabilities.referrers_api = True
            return _filtered(found, artifact_type)
        capabilities.referrers_api = False
    try:
        return _filtered(get_manifest(transport, name, fallback_tag(subject)).children, artifact_type)
    except NotFound:
        return ()


def add_to_fallback(transport: Transport, name: Repository, manifest: Manifest, subject: Digest) -> None:
    """Makes a pushed manifest known under its subject's fallback tag, for a registry that doesn't do so itself.

    The tag is shared by all referrers of one subject and registries have no compare-and-swap: writers in this process
    take turns, and what another process overwrote is noticed by reading back, and added again.
    """
    tag = fallback_tag(subject)
    with _lock_of(str(name), tag):
        for _ in range(_ROUNDS):
            index = _current(transport, name, tag)
            if any(child.digest == manifest.digest for child in index.children):
                return
            entries = [*json.loads(index.raw)["manifests"], manifest.descriptor.to_dict()]
            put_manifest(transport, name, _index(entries), tag)
    index = _current(transport, name, tag)
    if not any(child.digest == manifest.digest for child in index.children):
        raise Refused(
            f"{name}:{tag} is being changed by somebody else all the time",
            side=transport.side,
            store=transport.registry,
            subject=f"{name}@{manifest.digest}",
            operation="listing the manifest among the referrers of its subject",
            retryable=True,
        )


def _from_api(transport: Transport, name: Repository, subject: Digest, artifact_type: str) -> list[Descriptor] | None:
    """None where the registry has no such API; a registry that has it answers 200 even when there are none."""
    target: Target | None = targets.referrers(name, subject, artifact_type)
    found: list[Descriptor] = []
    while target:
        answer = transport.send(
            Request(
                method="GET",
                target=target,
                kind="referrers",
                scopes=(Scope(name.path, "pull"),),
                operation="listing the referrers",
                subject=f"{name}@{subject}",
                expect=frozenset({200, 400, 404, 405, 501}),
            )
        )
        page = _page(answer)
        if page is None:
            return None
        found.extend(page)
        target = next_page(answer, target)
    return found


def _page(answer: Answer) -> list[Descriptor] | None:
    if answer.status != 200 or not answer.headers.get("content-type", "").startswith(OCI_INDEX):
        return None
    return list(parse_manifest(answer.body, OCI_INDEX, limit=len(answer.body)).children)


def _filtered(found: Any, artifact_type: str) -> tuple[Descriptor, ...]:
    """The filter is ours in any case: a registry may or may not have applied it."""
    return tuple(one for one in found if not artifact_type or one.artifact_type == artifact_type)


def _current(transport: Transport, name: Repository, tag: str) -> Manifest:
    try:
        found = get_manifest(transport, name, tag)
    except StoreError as error:
        if error.status != 404:
            raise
        return _index([])
    return found if found.is_index else _index([])


def _index(entries: list[dict[str, Any]]) -> Manifest:
    body = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    return parse_manifest(json.dumps(body, separators=(",", ":")).encode(), OCI_INDEX)


def _lock_of(name: str, tag: str) -> threading.Lock:
    with _tag_locks_lock:
        return _tag_locks.setdefault((name, tag), threading.Lock())
