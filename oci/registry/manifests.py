"""Manifests over HTTP (distribution-spec, end-2, end-3, end-7, end-9)."""

from __future__ import annotations

from oci.descriptor import Descriptor
from oci.digest import Digest, Verifier, is_digest, parse_digest
from oci.errors import InvalidManifest, Refused, StoreError
from oci.manifest import ACCEPT, Manifest, parse_manifest
from oci.reference import Repository
from oci.registry.http import target as targets
from oci.registry.http.answer import Answer
from oci.registry.http.body import Headers
from oci.registry.http.request import Request, Scope
from oci.registry.http.transport import Transport

_ACCEPT = {"Accept": ACCEPT}


def _request(name: Repository, method: str, identifier: str, operation: str, expect: set[int]) -> Request:
    return Request(
        method=method,
        target=targets.manifest(name, identifier),
        kind="manifest",
        scopes=(Scope(name.path, "pull"),),
        operation=operation,
        subject=shown_reference(name, identifier),
        expect=frozenset(expect),
        headers=_ACCEPT,
    )


def shown_reference(name: Repository, identifier: str) -> str:
    return f"{name}@{identifier}" if is_digest(identifier) else f"{name}:{identifier}"


def head_manifest(transport: Transport, name: Repository, identifier: str) -> Descriptor | None:
    """None when there is none. A registry that leaves out the digest or the length is asked with GET instead."""
    answer = transport.send(_request(name, "HEAD", identifier, "looking for the manifest", {200, 404, 405}))
    if answer.status == 404:
        return None
    digest, length = answer.headers.get("docker-content-digest", ""), answer.headers.get("content-length", "")
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip()
    if answer.status == 405 or not is_digest(digest) or not length.isdigit() or not media_type:
        try:
            manifest = get_manifest(transport, name, identifier)
        except StoreError as error:
            if error.status == 404:
                return None
            raise
        return Descriptor(manifest.media_type, manifest.digest, manifest.size)
    if is_digest(identifier) and digest != identifier:
        raise Refused(
            f"asked for {identifier}, the registry speaks of {digest}",
            side=transport.side,
            store=transport.registry,
            subject=shown_reference(name, identifier),
            operation="looking for the manifest",
        )
    return Descriptor(media_type, Digest(digest), int(length))


def get_manifest(transport: Transport, name: Repository, identifier: str) -> Manifest:
    """The manifest with its bytes as they came. By digest, the bytes are hashed; by tag, they are compared with what
    the registry says their digest is."""
    answer = transport.send(_request(name, "GET", identifier, "fetching the manifest", {200}))
    subject = shown_reference(name, identifier)
    expected = identifier if is_digest(identifier) else answer.headers.get("docker-content-digest", "")
    if is_digest(expected):
        verifier = Verifier(parse_digest(expected), len(answer.body), f"{transport.side} {subject}".strip())
        verifier.update(answer.body)
        verifier.finish()
    transport.meter.read(len(answer.body))
    limit = transport.settings.manifest_limit
    try:
        return parse_manifest(answer.body, answer.headers.get("content-type", ""), limit=limit)
    except InvalidManifest as error:
        raise InvalidManifest(f"{transport.side} {subject}: {error.message}".strip(), hint=error.hint) from error


def put_manifest(transport: Transport, name: Repository, manifest: Manifest, tag: str) -> Answer:
    """Pushes the bytes under `tag`, or by digest. A tag that the registry holds immutable is fine when it shows the
    same manifest already."""
    identifier = tag or manifest.digest
    request = Request(
        method="PUT",
        target=targets.manifest(name, identifier),
        kind="manifest",
        scopes=(Scope(name.path, "pull,push"),),
        operation="pushing the manifest",
        subject=shown_reference(name, identifier),
        expect=frozenset({200, 201, 202}),
        headers={"Content-Type": manifest.media_type},
        body=manifest.raw,
    )
    try:
        answer = transport.send(request)
    except StoreError as error:
        return _kept_immutable(transport, name, manifest, tag, error)
    said = answer.headers.get("docker-content-digest", "")
    if said and said != manifest.digest:
        raise Refused(
            f"pushed {manifest.digest}, the registry made {said} of it",
            side=transport.side,
            store=transport.registry,
            subject=request.subject,
            operation=request.operation,
            hint="something between here and the registry changes manifests",
        )
    return answer


def _kept_immutable(transport: Transport, name: Repository, manifest: Manifest, tag: str, error: StoreError) -> Answer:
    """ECR refuses even the same digest under an immutable tag; that is no failure."""
    if not tag or error.status not in (400, 403, 405, 409, 412) or "immutab" not in str(error).lower():
        raise error
    there = head_manifest(transport, name, tag)
    if there is None or there.digest != manifest.digest:
        error.hint = "the tag is immutable here and shows another manifest: choose another tag"
        raise error
    return Answer(201, Headers(), b"", "")


def delete_manifest(transport: Transport, name: Repository, identifier: str, operation: str) -> None:
    transport.send(
        Request(
            method="DELETE",
            target=targets.manifest(name, identifier),
            kind="manifest",
            scopes=(Scope(name.path, "pull,push,delete"),),
            operation=operation,
            subject=shown_reference(name, identifier),
            expect=frozenset({200, 202, 404}),
        )
    )
