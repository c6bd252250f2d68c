"""Manifests over HTTP (distribution-spec, end-3, end-7, end-9)."""

from __future__ import annotations

from typing import Any

from oci.descriptor import Descriptor
from oci.digest import Digest, Verifier, digest_of, is_digest, is_other_digest, parse_digest
from oci.errors import Denied, InvalidManifest, NotFound, StoreError, Unauthorized
from oci.manifest import ACCEPT, Manifest, parse_manifest
from oci.reference import Repository
from oci.registry import endpoints
from oci.registry.endpoints import DELETE_MANIFEST, GET_MANIFEST, HEAD_MANIFEST, PUT_MANIFEST, Kind, Request
from oci.registry.http.answer import Answer
from oci.registry.http.transport import Remote

_ACCEPT = {"Accept": ACCEPT}
_ABSENT_LIMIT = 10_000
_CHANGED_MEANWHILE = frozenset({"DIGEST_INVALID", "MANIFEST_INVALID"})
"""docker-registry 2.8.2 answers so to an index while one of its children gets another tag."""

_TAG_IS_KEPT = frozenset({400, 403, 405, 409, 412, 422, 423})
"""What registries answer to a PUT of a tag that may not be written again: ECR and Nexus 400, Artifactory 403, Quay and
GAR 409, Harbor 412."""


def shown_reference(name: Repository, identifier: str) -> str:
    return f"{name}@{identifier}" if is_digest(identifier) else f"{name}:{identifier}"


def head_manifest(remote: Remote, identifier: str) -> Descriptor | None:
    """None when there is none. A registry that refuses HEAD, or leaves out the digest or the length, is asked with GET.
    A destination that denies both has nothing yet that this login may see: the write itself decides."""
    descriptor: Descriptor | None = None
    refusal: StoreError | None = None
    if remote.learned.works(HEAD_MANIFEST) is not False:
        try:
            answer = remote.transport.send(_request(remote, HEAD_MANIFEST, identifier))
        except StoreError as error:
            remote.check_answered(error)
            refusal = error
        else:
            finders = remote.learned.finders
            if answer.status == 404:
                if len(remote.learned.absent) < _ABSENT_LIMIT:
                    remote.learned.absent.add((remote.name.path, identifier))
                if HEAD_MANIFEST in finders or GET_MANIFEST not in finders:
                    return None  # else GET found manifests here, and HEAD none: Nexus, Artifactory
            else:
                descriptor = _described(answer, identifier)
                finders.add(HEAD_MANIFEST)
    if descriptor is None:
        try:
            descriptor = get_manifest(remote, identifier).descriptor
        except NotFound:
            return None
        except (Denied, Unauthorized):
            if remote.transport.side == "destination":
                return None
            raise
        if refusal is not None:
            remote.learned.refuse(HEAD_MANIFEST, refusal)
    if not is_digest(identifier):
        remote.learned.tags[remote.name.path, descriptor.digest] = identifier
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)


def _described(answer: Answer, identifier: str) -> Descriptor | None:
    """The headers of a HEAD; None when they don't say all, or speak of another digest. A compressed answer has another
    length than the manifest."""
    headers = answer.headers
    digest, length = headers.get("docker-content-digest", ""), headers.get("content-length", "")
    media_type = headers.get("content-type", "").partition(";")[0].strip()
    encoded = headers.get("content-encoding", "identity") != "identity"
    if encoded or not is_digest(digest) or not length.isdigit() or len(length) > 18:
        return None
    if not media_type.startswith("application/vnd."):
        return None  # Artifactory, Nexus: none, or a general one; the content has it
    if is_digest(identifier) and digest != identifier:
        return None  # GET gives bytes, which can be hashed
    return Descriptor(media_type, Digest(digest), int(length))


def get_manifest(remote: Remote, identifier: str) -> Manifest:
    """The manifest with its bytes as they came. By digest, the bytes are hashed; by tag, they are compared with what
    the registry says their digest is. A pull-through cache has a digest only after the tag was read: one that this run
    saw under a tag is asked for by that tag. Where a HEAD didn't find what GET finds, HEAD isn't believed again."""
    try:
        manifest = _fetched(remote, identifier, identifier)
    except NotFound:
        tag = remote.learned.tags.get((remote.name.path, identifier))
        if tag is None:
            raise
        manifest = _fetched(remote, tag, identifier)
        remote.learned.note("a manifest asked for by its tag, for the registry has it only so")
    if (remote.name.path, identifier) in remote.learned.absent:
        remote.learned.refuse(HEAD_MANIFEST)
    return manifest


def _fetched(remote: Remote, identifier: str, reference: str) -> Manifest:
    answer = remote.transport.send(_request(remote, GET_MANIFEST, identifier))
    subject = shown_reference(remote.name, reference)
    stated = answer.headers.get("docker-content-digest", "")
    expected = reference if is_digest(reference) else stated
    if expected == stated != reference and is_digest(stated) and _is_another(remote, answer.body, stated):
        remote.learned.note("the digest in the header of a manifest is another one's, its own used")
    elif is_digest(expected):
        verifier = Verifier(parse_digest(expected), len(answer.body), f"{remote.transport.side} {subject}".strip())
        verifier.update(answer.body)
        verifier.finish()
    remote.transport.meter.read(len(answer.body))
    remote.learned.finders.add(GET_MANIFEST)
    limit = remote.transport.settings.manifest_limit
    try:
        return parse_manifest(answer.body, answer.headers.get("content-type", ""), limit=limit)
    except InvalidManifest as error:
        raise InvalidManifest(f"{remote.transport.side} {subject}: {error.message}".strip(), hint=error.hint) from error


def _is_another(remote: Remote, body: bytes, stated: str) -> bool:
    """Whether the digest that a header states is wrong (Artifactory, Nexus), and not the bytes: then the registry has
    the same bytes under the digest that they have."""
    digest = digest_of(body)
    if stated.partition(":")[0] != "sha256" or digest == stated:
        return False
    try:
        return remote.transport.send(_request(remote, GET_MANIFEST, digest)).body == body
    except StoreError:
        return False


def put_manifest(remote: Remote, manifest: Manifest, tag: str) -> bool:
    """Pushes the bytes under `tag`, or by digest. A tag that may not be written again is fine when it shows the same
    manifest already. True when the registry lists the manifest among the referrers of its subject (`OCI-Subject`)."""
    identifier = tag or manifest.digest
    request = PUT_MANIFEST.request(
        endpoints.manifest(remote.name, identifier),
        remote.name.path,
        shown_reference(remote.name, identifier),
        headers={"Content-Type": manifest.media_type},
        body=manifest.raw,
    )
    try:
        try:
            answer = remote.transport.send(request)
        except StoreError as error:
            if error.code not in _CHANGED_MEANWHILE:
                raise
            answer = remote.transport.send(request)
    except StoreError as error:
        if not tag or error.status not in _TAG_IS_KEPT:
            raise
        # Registries refuse even the same digest, each in words of its own: what the tag shows decides.
        try:
            shown = get_manifest(remote, tag).digest
        except StoreError:
            raise error from None
        if shown != manifest.digest:
            error.hint = "the tag shows another manifest and may not be written again: choose another tag"
            raise
        return False
    remote.learned.absent -= {(remote.name.path, identifier), (remote.name.path, manifest.digest)}
    stored = answer.headers.get("docker-content-digest", "")
    if is_other_digest(stored, manifest.digest):
        refusal = remote.refused(
            PUT_MANIFEST, f"pushed {manifest.digest}, the registry made {stored} of it", request.subject
        )
        refusal.hint = "something between here and the registry changes manifests"
        raise refusal
    if tag:
        remote.learned.tags[remote.name.path, manifest.digest] = tag
    return bool(answer.headers.get("oci-subject"))


def delete_manifest(remote: Remote, identifier: str, operation: str) -> None:
    """Raises Refused for what the registry says not to have, and has still."""
    answer = remote.transport.send(_request(remote, DELETE_MANIFEST, identifier, operation=operation))
    if answer.status == 404 and head_manifest(remote, identifier) is not None:
        message = "the registry says that it isn't there, and shows it"
        raise remote.refused(DELETE_MANIFEST, message, shown_reference(remote.name, identifier))


def _request(remote: Remote, kind: Kind, identifier: str, **more: Any) -> Request:
    headers = {} if kind.method == "DELETE" else _ACCEPT
    target, subject = endpoints.manifest(remote.name, identifier), shown_reference(remote.name, identifier)
    return kind.request(target, remote.name.path, subject, headers=headers, **more)
