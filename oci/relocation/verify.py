"""Proves that what is at a destination is whole: each manifest and blob is asked for, or each byte is hashed again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from oci.bundle import image as bundle_image
from oci.bundle.lockfile import pinned_by, read_lock, references_in
from oci.descriptor import Descriptor
from oci.digest import Digest, is_digest
from oci.errors import Denied, NotFound, TransshipError, Unauthorized
from oci.manifest import Manifest
from oci.output import to_dict
from oci.reference import StoreName, parse_any, parse_store
from oci.relocation.plan import Plan
from oci.relocation.session import Session
from oci.signatures.artifacts import ALL, ArtifactSelection
from oci.signatures.attached import Attachments
from oci.store import Source, found_manifest
from oci.units import counted


class Verification(Struct, frozen=True, kw_only=True):
    """What was verified, and the problems; sizes in bytes. Without problems all of it is in place."""

    manifests: int = 0
    blobs: int = 0
    bytes_hashed: int = 0
    problems: tuple[str, ...] = ()
    absent: int = 0
    """Problems that are names which aren't there."""

    @property
    def amounts(self) -> dict[str, int]:
        return {"manifests": self.manifests, "blobs": self.blobs, "bytes_hashed": self.bytes_hashed}

    def to_dict(self) -> dict[str, Any]:
        return to_dict(self)

    def __str__(self) -> str:
        """`3 manifests and 7 blobs`"""
        return f"{counted(self.manifests, 'manifest')} and {counted(self.blobs, 'blob')}"


def verify(session: Session, plan: Plan, *, deep: bool = False) -> Verification:
    """Verifies everything a plan has put, or left, at its destination, by walking the destination itself."""
    return verify_store(
        session,
        plan.destination,
        [manifest.digest for manifest in plan.manifests],
        omitted=frozenset(layer for _, layer in plan.skipped_layers),
        deep=deep,
    )


def verify_names(
    session: Session, name: StoreName, identifiers: Sequence[str] = (), *, deep: bool = False
) -> Verification:
    """Verifies what tags and digests of one store name, or without any every tag it has, with what is attached to it,
    and to the images inside. Layers that may not be distributed are passed over: a relocation leaves them out.

    Raises what the store raises when it doesn't give its tags, and Unauthorized or Denied when it won't show something.
    """
    store = session.destination(name)
    names = list(dict.fromkeys(identifiers or store.tags()))
    roots, problems, absent = [], [], 0

    def resolve(identifier: str) -> Descriptor | str | None:
        try:
            return found_manifest(store, identifier)
        except NotFound:
            return None
        except (Unauthorized, Denied):
            raise
        except TransshipError as error:
            return str(error)

    answers = session.workers.map(resolve, names)
    for identifier, answer in zip(names, answers, strict=True):
        if isinstance(answer, Descriptor):
            roots.append(answer.digest)
        else:
            problems.append(answer or f"{name}: there is no {'' if is_digest(identifier) else 'tag '}{identifier}")
            absent += answer is None
    verified = verify_store(session, name, roots, foreign_layers=False, attached=True, deep=deep)
    return replace(verified, problems=(*problems, *verified.problems), absent=absent)


def verify_store(
    session: Session,
    name: StoreName,
    roots: Iterable[Digest],
    *,
    omitted: frozenset[Digest] = frozenset(),
    foreign_layers: bool = True,
    attached: bool = False,
    deep: bool = False,
) -> Verification:
    """Walks down from `roots` inside one store, through indexes and bundles, and checks every blob but the `omitted`,
    and without `foreign_layers` those that may not be distributed. With `attached`, goes on to what is attached to all
    of it.

    Manifests are always read and hashed. Blobs are asked for, or with `deep` read and hashed as well.
    """
    store = session.destination(name)
    manifests: set[Digest] = set()
    blobs: dict[Digest, Descriptor] = {}
    problems: list[str] = []
    attachments = Attachments(
        ArtifactSelection(ALL if attached else ()),
        session.workers,
        listed={},
        failed=lambda subject, error: problems.append(f"{subject}: {error}"),
        noted=lambda where, text: session.meter.fallback(str(where.registry or where), text),
    )
    level = list(dict.fromkeys(roots))
    looked: set[Digest] = set()
    while level:
        session.cancel.check()
        manifests.update(level)
        below: list[Digest] = []
        results = session.workers.map(lambda digest: _expand(store, digest), level)
        for digest, result in zip(level, results, strict=True):
            if isinstance(result, str):
                problems.append(result)
                continue
            manifest, listed = result
            below.extend((*listed, *(child.digest for child in manifest.child_manifests)))
            blobs.update({blob.digest: blob for blob in (*manifest.blobs, *manifest.child_blobs)})
            if manifest.digest != digest:
                problems.append(f"{store.name}@{digest}: the manifest has digest {manifest.digest}")
        if attached and manifests.issuperset(below):  # what is attached comes when all else was visited
            below += [artifact.digest for artifact in attachments.of(store, sorted(manifests - looked))]
            looked.update(manifests)
        level = [digest for digest in dict.fromkeys(below) if digest not in manifests]

    def problem_of(blob: Descriptor) -> str:
        try:
            if deep:
                for _ in store.read_blob(blob):
                    pass
                return ""
            size = store.blob_size(blob.digest)
        except TransshipError as error:
            return str(error)
        if size is None:
            return f"{store.name}@{blob.digest}: the blob is missing"
        return "" if size == blob.size else f"{store.name}@{blob.digest}: {size} bytes instead of {blob.size}"

    required = [
        blob for digest, blob in blobs.items() if digest not in omitted and (foreign_layers or blob.distributable)
    ]
    problems.extend(filter(None, session.workers.map(problem_of, required)))
    return Verification(
        manifests=len(manifests),
        blobs=len(required),
        bytes_hashed=sum(blob.size for blob in required) if deep else 0,
        problems=tuple(problems),
    )


def _expand(store: Source, digest: Digest) -> tuple[Manifest, tuple[Digest, ...]] | str:
    """Returns a manifest and what it lists as a bundle, or the problem with it."""
    try:
        manifest = store.get_manifest(digest)
        if manifest.is_index or not bundle_image.is_bundle(store, manifest):
            return manifest, ()
        return manifest, pinned_by(bundle_image.read_images_lock(store, manifest))
    except TransshipError as error:
        return str(error)


def names_by_store(
    references: Iterable[str], repositories: Iterable[str] = (), locks: Iterable[str] = ()
) -> dict[StoreName, tuple[str, ...]]:
    """Returns tags and digests by store; none for a store of which everything is asked for. Raises InvalidReference,
    and what reading a lock raises."""
    named: dict[StoreName, dict[str, None]] = {}
    listed = list(map(parse_any, references))
    for lock in map(read_lock, locks):
        listed += references_in(lock)
    for reference in listed:
        named.setdefault(reference.repository, {})[reference.identifier] = None
    return {name: tuple(names) for name, names in named.items()} | {parse_store(name): () for name in repositories}


def lost_below(session: Session, store: Source, roots: Mapping[Digest, bool]) -> tuple[list[Digest], int]:
    """Which images a store lacks of those that bundles and indexes list, those inside others among them, down to the
    last: a HEAD for each; and how many are listed. `roots` says of each digest that is there whether it is a bundle.
    Blobs aren't asked for. Raises what reading a bundle or an index raises."""
    visited = set(roots)
    lost: list[Digest] = []
    level = dict(roots)
    while level:
        below: dict[Digest, bool] = {}
        for listed in session.workers.map(lambda root: _listed_by(store, *root), level.items()):
            below.update({digest: is_bundle for digest, is_bundle in listed.items() if digest not in visited})
        visited.update(below)
        heads = heads_of(session, store, list(below))
        lost += [digest for digest, head in heads.items() if head is None]
        level = {digest: below[digest] for digest, head in heads.items() if head and (below[digest] or head.is_index)}
    return lost, len(visited) - len(roots)


def _listed_by(store: Source, digest: Digest, is_bundle: bool) -> dict[Digest, bool]:
    """What a bundle or an index lists, and whether it is a bundle, as the locations of a bundle say."""
    manifest = store.get_manifest(digest)
    if not is_bundle:
        return {child.digest: False for child in manifest.child_manifests}
    locations = bundle_image.read_locations(store, digest)
    bundles = {each.image.digest for each in locations.images if each.is_bundle} if locations else set()
    return {each: each in bundles for each in pinned_by(bundle_image.read_images_lock(store, manifest))}


def heads_of(session: Session, store: Source, digests: Sequence[Digest]) -> dict[Digest, Descriptor | None]:
    """Asks by HEAD for manifests that should be there, and returns their descriptors, None for those that are absent.

    One that HEAD doesn't find is asked for by GET: some caches and proxies answer HEAD with 404. Where GET finds it,
    the others are asked for again, for the store then uses GET itself; where it doesn't, HEAD is believed. Raises what
    a store answers that denies it."""
    heads = dict(zip(digests, session.workers.map(store.head_manifest, digests), strict=True))
    for digest in digests:
        if heads[digest] is not None:
            continue
        try:
            heads[digest] = store.get_manifest(digest).descriptor
        except NotFound:
            break
        absent = [other for other, head in heads.items() if head is None]
        heads.update(zip(absent, session.workers.map(store.head_manifest, absent), strict=True))
    return heads
