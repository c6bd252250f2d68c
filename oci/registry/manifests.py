"""Manifests over HTTP, and the lists of tags and repositories (distribution-spec, end-3, end-7, end-8, end-9; the
catalog is Docker's)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import msgspec

from oci.descriptor import Descriptor, parse_json
from oci.digest import Digest, Verifier, digest_of, is_digest, is_other_digest, parse_digest
from oci.errors import Denied, InvalidManifest, NotFound, Refused, StoreError, Unauthorized
from oci.manifest import ACCEPT, Manifest, parse_manifest
from oci.reference import Repository, is_path, is_tag
from oci.registry import endpoints
from oci.registry.endpoints import (
    DELETE_MANIFEST,
    DELETE_TAG,
    GET_CATALOG,
    GET_MANIFEST,
    GET_TAGS,
    GET_TAGS_AFTER,
    GET_TAGS_PAGE,
    HEAD_MANIFEST,
    PUT_MANIFEST,
    Kind,
    Request,
    RequestTarget,
    Scope,
)
from oci.registry.http.answer import Answer
from oci.registry.http.transport import Remote, Transport
from oci.registry.profiles import is_refusal

_ABSENT_LIMIT = 10_000
_CHANGED_MEANWHILE = frozenset({"DIGEST_INVALID", "MANIFEST_INVALID"})
"""docker-registry 2.8.2 answers so to an index while one of its children gets another tag."""

_TAG_IS_KEPT = frozenset({400, 403, 405, 409, 412, 422, 423})
"""What registries answer to a PUT of a tag that may not be written again: ECR and Nexus 400, Artifactory 403, Quay and
GAR 409, Harbor 412."""

PAGE = 999
"""Names asked for at a time: ECR refuses to give more than 1000. One less than a round number, so that an answer of
exactly 1000 is longer than asked for, which shows that the registry doesn't page at all."""

PAGES_LIMIT = 20_000
"""Pages of a list that are read."""

_ROUND = 50
"""What the page sizes of registries are multiples of: 50, 100, 1000."""

_LINK = re.compile(r'<([^<>]*)>((?:\s*;[^<>;,"]*(?:"[^"<>]*")?)*)')
"""A link of a Link header and its parameters (RFC 8288, section 3); a quoted value may have commas."""

_RELATION = re.compile(r';\s*rel\s*=\s*"?([^";,]*)', re.IGNORECASE)


def shown_reference(name: Repository, identifier: str) -> str:
    return f"{name}@{identifier}" if is_digest(identifier) else f"{name}:{identifier}"


def head_manifest(remote: Remote, identifier: str) -> Descriptor | None:
    """None when there is none. A registry that refuses HEAD, or leaves out the digest or the length, is asked with GET.
    A destination that denies both has nothing yet that this login may see: the write itself decides."""
    descriptor: Descriptor | None = None
    refusal: StoreError | None = None
    if remote.learned.works(HEAD_MANIFEST) is not False:
        try:
            answer = _send(remote, HEAD_MANIFEST, identifier)
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
    answer = _send(remote, GET_MANIFEST, identifier)
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
        return _send(remote, GET_MANIFEST, digest).body == body
    except StoreError:
        return False


def put_manifest(remote: Remote, manifest: Manifest, tag: str) -> bool:
    """Pushes the bytes under `tag`, or by digest. A tag that may not be written again is fine when it shows the same
    manifest already. True when the registry lists the manifest among the referrers of its subject (`OCI-Subject`)."""
    identifier = tag or manifest.digest
    put = partial(_send, remote, PUT_MANIFEST, identifier, {"Content-Type": manifest.media_type}, body=manifest.raw)
    try:
        try:
            answer = put()
        except StoreError as error:
            if error.code not in _CHANGED_MEANWHILE:
                raise
            answer = put()
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
        message = f"pushed {manifest.digest}, the registry made {stored} of it"
        refusal = remote.refused(PUT_MANIFEST, message, shown_reference(remote.name, identifier))
        refusal.hint = "something between here and the registry changes manifests"
        raise refusal
    if tag:
        remote.learned.tags[remote.name.path, manifest.digest] = tag
    return bool(answer.headers.get("oci-subject"))


def delete_manifest(remote: Remote, identifier: str, kind: Kind = DELETE_MANIFEST) -> None:
    """Raises Refused for what the registry says not to have, and has still."""
    answer = _send(remote, kind, identifier, {})
    if answer.status == 404 and head_manifest(remote, identifier) is not None:
        message = "the registry says that it isn't there, and shows it"
        raise remote.refused(DELETE_MANIFEST, message, shown_reference(remote.name, identifier))


def delete_tag(remote: Remote, tag: str) -> None:
    """Never falls back to deleting the manifest: other tags may show it."""
    try:
        delete_manifest(remote, tag, DELETE_TAG)
    except StoreError as error:
        if error.status in (400, 405, 501):
            raise remote.transport.error(
                Refused,
                f"this registry can't delete a tag alone: {error.message}",
                error.subject,
                error.operation,
                status=error.status,
                code=error.code,
                hint="delete the manifest by its digest, with all its tags, if that is what you want",
            ) from error
        raise


def _send(
    remote: Remote,
    kind: Kind,
    identifier: str,
    headers: Mapping[str, str] = MappingProxyType({"Accept": ACCEPT}),
    **more: Any,
) -> Answer:
    target, subject = endpoints.manifest(remote.name, identifier), shown_reference(remote.name, identifier)
    return remote.send(kind, target, subject, headers=headers, **more)


def list_tags(remote: Remote, *, exhaustive: bool = False) -> Iterator[str]:
    """With `exhaustive`, a page without a Link is not believed to be the last: `last=` is asked until a page brings
    nothing new, and names that can't be asked for are given, too. For callers that delete what isn't named: some
    registries cut a list short without a Link."""
    name = remote.name
    path, scope = partial(endpoints.tags, name), Scope(name.path, "pull")
    return _pages(remote.transport, path, scope, str(name), exhaustive=exhaustive)


def catalog(transport: Transport) -> Iterator[str]:
    """The repositories of a registry, as far as it shows them."""
    return _pages(transport, endpoints.catalog, Scope("", "catalog"), transport.registry)


def next_page(answer: Answer, target: RequestTarget) -> RequestTarget | None:
    """The page after the one at `target` (RFC 8288), or None."""
    for address, parameters in _LINK.findall(answer.headers.get("link", "")):
        relation = _RELATION.search(parameters)
        if relation and "next" in relation.group(1).lower().split():
            return target.next_page(address)
    return None


def _pages(
    transport: Transport, path: Callable[..., RequestTarget], scope: Scope, subject: str, *, exhaustive: bool = False
) -> Iterator[str]:
    """Follows `Link`. A page of a round length, or of the one asked for, without a link is perhaps a full page of a
    registry that leaves it out: it is followed by `last=`. Ends when a page brings nothing new, or more than was asked
    for: docker-registry 2.8.2 ignores both and gives everything each time. Where `n` is refused, the list is read
    without it; where a `last=` that no link named is refused, what was read is the list."""
    listing, learned = GET_TAGS if scope.repository else GET_CATALOG, transport.learned

    def ask(target: RequestTarget, kind: Kind) -> Answer:
        kind = msgspec.structs.replace(kind, resource=listing.resource, operation=listing.operation)
        return transport.send(Request(kind=kind, target=target, scopes=(scope,), subject=subject))

    size = "" if learned.works(GET_TAGS_PAGE) is False else str(PAGE)
    target, kind = path(n=size) if size else path(), GET_TAGS_PAGE if size else listing
    listed: set[str] = set()
    for _ in range(PAGES_LIMIT):
        try:
            answer = ask(target, kind)
        except StoreError as refusal:
            if kind is GET_TAGS_PAGE and is_refusal(refusal):
                size, target = "", path()
                answer = ask(target, listing)
                learned.refuse(kind, refusal)
            elif kind is GET_TAGS_AFTER and (is_refusal(refusal) or refusal.status in (401, 403, 404)):
                learned.refuse(kind, refusal)
                return
            else:
                raise
        names = _names(answer, transport, subject, listing)
        new = [name for name in dict.fromkeys(names) if name not in listed]
        listed.update(new)
        usable = [name for name in new if (is_tag if scope.repository else is_path)(name)]
        if len(usable) < len(new):
            learned.note(f"names in the list of {subject} that can't be asked for, left out")
        yield from filter(None, new) if exhaustive else usable
        link = answer.headers.get("link", "")
        unread = link != "" and _LINK.search(link) is None  # a form that RFC 8288 doesn't have: there is more
        is_full = len(names) == PAGE or (len(names) < PAGE and (exhaustive or unread or len(names) % _ROUND == 0))
        following, kind = next_page(answer, target) if new else None, listing
        if new and following is None and is_full and learned.works(GET_TAGS_AFTER) is not False:
            following, kind = path(**({"n": size} if size else {}), last=names[-1]), GET_TAGS_AFTER
        if following is None:
            return
        target = following
    endless = transport.error(Refused, f"the list has more than {PAGES_LIMIT} pages", subject, listing.operation)
    endless.hint = "a registry that never ends its list is broken, or an attack"
    raise endless


def _names(answer: Answer, transport: Transport, subject: str, kind: Kind) -> list[str]:
    """The names of a page. What is no text among them is an empty name, which is nothing's."""
    key = "tags" if kind is GET_TAGS else "repositories"
    try:
        body: Any = parse_json(answer.body)
        # Without a tag some leave the key out, and none the name. `null` is an empty list (docker-registry).
        names = body.get(key) or [] if key in body or (kind is GET_TAGS and "name" in body) else None
        if isinstance(names, list) and (not names or any(isinstance(name, str) for name in names)):
            return [name if isinstance(name, str) else "" for name in names]
    except (ValueError, AttributeError, TypeError):
        pass
    raise transport.error(Refused, f"the answer is no list of {key}", subject, kind.operation)
