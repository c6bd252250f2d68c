"""An archive as the source of a relocation: what to walk from, and what the destination has to have already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from msgspec.structs import replace

from oci.archive.entry import ArchiveEntry
from oci.archive.source import ArchiveSource, EmptyArchive
from oci.bundle import image as bundle_image
from oci.bundle import tagnames
from oci.bundle.lockfile import pinned_by
from oci.bundle.pull import PullRequest
from oci.descriptor import Descriptor
from oci.digest import Digest, is_digest
from oci.errors import InvalidInput, NotFound, StoreError
from oci.reference import Reference, Repository, StoreName
from oci.relocation.plan import Entry, Node, Role, Roots
from oci.relocation.session import Session
from oci.signatures.attached import DEPTH
from oci.store import Source
from oci.units import counted


def archive_roots(
    archive: ArchiveSource,
    only: Sequence[str],
    *,
    source: str,
    tags: tuple[str, ...],
    shallow: bool,
    read: bundle_image.BlobBytes,
) -> Roots:
    """Returns all that the archive has, or what `only` names of it. The bundle that it was made for, or else its only
    image, comes first, and gets `tags`, or else those that it has. With `shallow`, what that bundle lists is a root,
    too: the walk doesn't go there from it."""
    groups = _chosen_by_digest(archive, only)
    main = _main(archive, groups)
    is_root_bundle = main is not None and (
        any(element.is_root_bundle for element in groups[main]) or (bool(only) and is_bundle(archive, main))
    )
    below_main = {main}
    if main is not None and is_root_bundle and not shallow:  # the walk from it visits these
        below_main |= _below(archive, [main], read, indexes=False)
    entries = {
        digest: Entry(
            digest=digest,
            places=(archive.name,),
            role=_role(archive, group),
            origin=group[0].pinned_origin,
            tags=_tags(group),
        )
        for digest, group in groups.items()
    }
    others = [entry for digest, entry in entries.items() if digest not in below_main]
    if main is None:
        return Roots(source, tuple(others), is_list=True)
    root = replace(entries[main], role=Role.ROOT, hint=is_root_bundle or None, tags=())
    return Roots(source, (root, *others), tags or entries[main].tags, is_bundle=is_root_bundle)


def named_in_archive(archive: ArchiveSource, name: str = "") -> tuple[Reference, bool]:
    """One image of an archive, and whether it is a bundle: what the name says, or what the archive was made for."""
    by_digest = _chosen_by_digest(archive, [name] if name else [])
    main = _main(archive, by_digest)
    if main is None:
        named = f" of the name {name}" if name else ""
        raise InvalidInput(
            f"{archive.name} has {counted(len(by_digest), 'image')}{named}, and one is needed",
            hint="say which: `transship archive list` shows them",
        )
    return Reference(archive.name, "", main), is_bundle(archive, main)


def in_archive(archive: ArchiveSource, request: PullRequest) -> PullRequest:
    """Returns the request for the same image in the archive. Raises InvalidInput where the archive has it not."""
    reference, _ = named_in_archive(archive, request.bundle or request.image)
    if request.bundle:
        return dataclasses.replace(request, bundle=str(reference))
    return dataclasses.replace(request, image=str(reference))


def sealed(archive: ArchiveSource) -> Callable[[StoreName], Source]:
    """Gives a function that opens the archive and, for any other store, nothing: what the archive lacks is not looked
    for where it came from."""
    return lambda name: archive if name == archive.name else EmptyArchive(archive.name)


def require_missing_blobs(
    session: Session, archive: ArchiveSource, nodes: Iterable[Node], destination: Source
) -> dict[Digest, Repository]:
    """Blobs that the archive doesn't have must be at the destination: they are taken off the nodes. For a layer that
    is non-distributable, the repository of the same registry that the archive names will do as well, as for imgpkg:
    these are returned, to be mounted from. Raises NotFound, naming all that are missing, before anything was sent."""
    lacking = {
        blob.digest: (blob, node) for node in nodes for blob in node.blobs if archive.blob_size(blob.digest) is None
    }
    sizes = list(session.workers.map(destination.blob_size, lacking))
    elsewhere: dict[Digest, Repository] = {}
    missing: list[Digest] = []
    for (digest, (blob, node)), size in zip(lacking.items(), sizes, strict=True):
        if size == blob.size:
            continue
        repository = None if blob.distributable else _neighbour(session, archive, node, blob, destination.name)
        if repository is None:
            missing.append(digest)
        else:
            elsewhere[digest] = repository
    transship_json = archive.contents.transship_json
    required = transship_json.required
    if not required.issuperset(missing):
        raise archive.lacks(next(digest for digest in missing if digest not in required), "looking for the blob")
    if missing:
        named = "".join(
            f"\n  {digest} of {lacking[digest][1].origin or lacking[digest][1].digest}" for digest in missing
        )
        raise NotFound(
            f"{len(missing)} of the {len(required)} blobs that the archive leaves out aren't there:{named}",
            side="destination",
            store=str(destination.name),
            operation="looking for what a delta requires",
            hint=f"it needs what {transship_json.base} has: import that first, or leave out --delta-from",
        )
    for node in nodes:
        node.blobs = tuple(blob for blob in node.blobs if blob.digest not in lacking or blob.digest in elsewhere)
    return elsewhere


def _neighbour(
    session: Session, archive: ArchiveSource, node: Node, blob: Descriptor, destination: StoreName
) -> Repository | None:
    """Returns the repository that an image came from, if it is in the destination's registry and has the blob."""
    entries = [entry for entry in archive.contents.entries if entry.digest == node.digest]
    for reference in dict.fromkeys(reference for entry in entries for reference in entry.pinned):
        repository = reference.repository
        if not isinstance(repository, Repository) or repository.registry != destination.registry:
            continue
        try:
            if session.destination(repository).blob_size(blob.digest) == blob.size:
                return repository
        except StoreError:
            continue
    return None


def _chosen_by_digest(archive: ArchiveSource, names: Sequence[str]) -> dict[Digest, list[ArchiveEntry]]:
    """Groups all entries of the archive; with names, those and what is attached to them and to what they list."""
    contents = archive.contents
    chosen: dict[ArchiveEntry, None] = {} if names else dict.fromkeys(contents.entries)
    for text in names:
        named = [element for element in contents.entries if element.is_called(text)]
        digest = text.rpartition("@")[2]
        if not named and is_digest(digest) and Digest(digest) in contents.manifests:
            named = [ArchiveEntry(digest=Digest(digest), reference="")]
        if not named:
            raise NotFound(
                "no image of the archive is called so",
                side="source",
                store=str(archive.name),
                subject=text,
                operation="looking for the image",
                hint="`transship archive list` shows what there is: give a digest, a tag or a reference",
            )
        chosen.update(dict.fromkeys(named))
    new, below = list(chosen), set[Digest]()
    for _ in range(DEPTH if names else 0):
        below |= _below(archive, [element.digest for element in new])
        signatures = {tag for digest in below for tag in tagnames.cosign(digest)}
        new = [
            element
            for element in contents.entries
            if element not in chosen
            and (
                element.tag in signatures
                or ((subject := contents.manifests[element.digest].subject) is not None and subject.digest in below)
            )
        ]
        if not new:
            break
        chosen.update(dict.fromkeys(new))
    by_digest: dict[Digest, list[ArchiveEntry]] = {}
    for element in chosen:
        by_digest.setdefault(element.digest, []).append(element)
    return by_digest


def _below(
    archive: ArchiveSource,
    digests: Iterable[Digest],
    read: bundle_image.BlobBytes = bundle_image.blob_bytes,
    *,
    indexes: bool = True,
) -> set[Digest]:
    """Manifests with what bundles list, and the children of `indexes`."""
    below: set[Digest] = set()
    unread = list(digests)
    while unread:
        digest = unread.pop()
        manifest = archive.contents.manifests.get(digest)
        if digest in below or manifest is None:
            continue
        below.add(digest)
        unread.extend(child.digest for child in manifest.children if indexes)
        if is_bundle(archive, digest) and archive.has_all(manifest):
            lock = bundle_image.read_images_lock(archive, manifest, read)
            unread.extend(pinned_by(lock))
    return below


def _main(archive: ArchiveSource, elements: dict[Digest, list[ArchiveEntry]]) -> Digest | None:
    roots = [digest for digest, group in elements.items() if any(element.is_root_bundle for element in group)]
    plain = [digest for digest, group in elements.items() if _role(archive, group) is Role.LISTED]
    return next(iter(roots), plain[0] if len(plain) == 1 else None)


def _role(archive: ArchiveSource, group: Sequence[ArchiveEntry]) -> Role:
    if any(tagnames.is_cosign(element.tag) for element in group):
        return Role.SIGNATURE
    manifest = archive.contents.manifests[group[0].digest]
    return Role.REFERRER if manifest.subject is not None and not _tags(group) else Role.LISTED


def is_bundle(archive: ArchiveSource, digest: Digest) -> bool:
    manifest = archive.contents.manifests[digest]
    return bundle_image.is_bundle(archive, manifest)


def _tags(group: Iterable[ArchiveEntry]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(element.tag for element in group if element.tag))
