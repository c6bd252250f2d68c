"""Makes the plan of a relocation: resolves the source, asks what the destination has, and walks the source."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from oci.bundle import tagnames
from oci.bundle.image import AS_BUNDLE, AS_IMAGE, NOT_A_BUNDLE
from oci.bundle.lockfile import ImagesLock, LockedImage, read_lock
from oci.descriptor import Descriptor, Platform
from oci.digest import Digest
from oci.errors import Denied, InvalidInput, NotFound, Unauthorized
from oci.manifest import Manifest
from oci.meter import unheard
from oci.output import check_destination
from oci.reference import ArchiveName, Reference, Repository, StoreName
from oci.relocation.plan import (
    Entry,
    Node,
    Plan,
    PlanFailure,
    PlannedBlob,
    PlannedBundle,
    PlannedManifest,
    Role,
    Roots,
)
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.walk import DestinationState, Walk, digest_in, tags_to_move
from oci.store import Source, found_manifest

if TYPE_CHECKING:
    from oci.signatures.policy import Gate


class Snapshot(Struct, frozen=True):
    """What a comparison knows of the destination and of sources, so that planning doesn't ask again."""

    moving: frozenset[str] = frozenset()
    """Tags that show another image at the destination, or that it doesn't have."""
    fresh: bool = False
    """Whether the destination had no tag at all."""
    tag_lists: Mapping[StoreName, frozenset[str]] = field(default_factory=dict)
    """The tags of source repositories."""


OnNode: TypeAlias = Callable[[bool, Node, int], None]
"""Gets, in the thread that plans, whether the destination is fresh, a node that was found, and how many nodes are known
to follow."""


def make_plan(
    session: Session,
    request: RelocationRequest,
    *,
    snapshot: Snapshot | None = None,
    on_node: OnNode = unheard,
) -> Plan:
    """Walks the source and asks the destination what it has. Nothing is written.

    Raises when the root can't be read, isn't what was asked for, or is refused by the policy of signatures. Any other
    part that can't be read is a failure in the plan: the rest may be transferred, and nothing is given a name.
    """
    # A mistake in the policy, or a folder that can't be written, is found before the first request.
    gate = session.gate(request.policy, signed=request.require_signatures) if request.policy else None
    check_destination(request.destination)
    roots, refused = _admitted(session, gate, _resolve(session, request), request.destination)
    roots, rewritten = _choose_platforms(session, roots, request.wanted_platforms)
    store = _destination(session, request.destination)
    _drop_tags_in_place(session, store, roots.entries)
    destination, moving = _ask_destination(store, roots, snapshot, repair=request.repair)
    walk = Walk(
        session,
        destination,
        request.wanted_artifacts,
        rewritten=rewritten,
        bundles=(roots.is_bundle or request.image_may_be_bundle) and not request.shallow,
        below_present_bundles=bool(request.names),
        all_layers=request.include_non_distributable,
        tag_lists=snapshot.tag_lists if snapshot else {},
    )
    walk.run(roots.entries, partial(on_node, destination.fresh))
    _check_kinds(roots, walk, request, destination)
    if request.wanted_artifacts:
        walk.follow_attachments()
    # Only what is copied now, of the root's repository, is asked for: an unchanged copy costs no request for this.
    copied = [node for node in walk.nodes.values() if not node.present and node.store == roots.entries[0].places[0]]
    ask = snapshot is None and bool(request.image)
    attached_left = walk.count_left(() if request.archive else copied, ask=ask)
    named = _readable_names(walk.nodes.values(), request.name_rules)
    for tag, digest in tags_to_move(session, store, [(tag, digest) for digest, tag in named.items()]):
        walk.nodes[digest].tags += (tag,)
    nodes = children_first(walk.nodes)
    mounted: Mapping[Digest, Repository] = {}
    if request.archive:
        from oci.relocation.archive_source import require_missing_blobs  # noqa: PLC0415 - for archives only

        mounted = require_missing_blobs(session, session.archive(request.archive_name), nodes, store)
    return Plan(
        source=roots.source,
        destination=request.destination,
        root=None if roots.is_list else roots.entries[0].digest,
        manifests=tuple(
            planned_manifest(node, request, moving if node.role is Role.ROOT else node.tags, rewritten)
            for node in nodes
        ),
        blobs=planned_blobs(nodes, mounted),
        bundles=tuple(_planned_bundle(node, walk.nodes) for node in nodes if node.listed is not None),
        failures=(*refused, *walk.failures, *walk.attachment_failures),
        skipped_layers=tuple((node.digest, layer) for node in nodes for layer in node.skipped_layers),
        unchanged=not moving and all(node.present and not node.tags and node.listed is None for node in nodes),
        fresh=destination.fresh,
        repair=request.repair,
        tags=roots.tags,
        attached_left=attached_left,
        backup=request.backup,
    )


def _resolve(session: Session, request: RelocationRequest) -> Roots:
    """Reads the lock or the archive, or asks the source what a tag means. A digest costs no request."""
    if request.archive:
        from oci.relocation.archive_source import archive_roots  # noqa: PLC0415 - for archives only

        archive = session.archive(request.archive_name)
        if request.require_signature:
            session.prove_archive(request.archive_name, request.require_signature)
        return archive_roots(
            archive,
            request.only,
            source=request.source_text,
            tags=request.tags,
            shallow=request.shallow,
            read=session.read_small,
        )
    if request.lock:
        lock = read_lock(request.lock)
        if isinstance(lock, ImagesLock):
            entries = tuple(map(_listed, lock.images))
            return Roots(request.lock, entries, is_list=True, requested_tag=request.asked_tag)
        reference, tag, is_bundle = lock.image, lock.tag, True
    else:
        reference, tag, is_bundle = request.reference, request.reference.tag, bool(request.bundle)
    tags = request.tags or ((tag,) if tag else ())
    digest = reference.digest or found_manifest(session.source(reference.repository), reference.tag).digest
    root = Entry(
        digest=digest,
        places=(reference.repository,),
        role=Role.ROOT,
        origin=reference.at(digest),
        hint=is_bundle or None,
    )
    return Roots(str(reference), (root,), tags, is_bundle=is_bundle, requested_tag=reference.tag or request.asked_tag)


def _listed(image: LockedImage) -> Entry:
    return Entry(
        digest=digest_in(image.image),
        places=(image.image.repository,),
        role=Role.LISTED,
        origin=image.image,
        annotations=image.annotations,
    )


def _admitted(
    session: Session, gate: Gate | None, roots: Roots, destination: StoreName
) -> tuple[Roots, tuple[PlanFailure, ...]]:
    """Returns the roots that the policy of signatures lets in, and why it refuses the others. What a bundle lists is
    pinned by the bundle's own digest, and what is attached to an image proves itself. Raises NotTrusted when it refuses
    the root of all."""
    if gate is None:
        return roots, ()
    from oci.signatures.policy import refusals  # noqa: PLC0415 - only with a policy

    candidates = [entry for entry in roots.entries if entry.role not in (Role.SIGNATURE, Role.REFERRER)]
    images = []
    for entry in candidates:
        # The tag counts at a registry that was asked for it. What an archive says of its origin doesn't.
        place = entry.places[0]
        tag = roots.requested_tag if entry.origin is not None and entry.origin.repository == place else ""
        images.append((session.source(place), Reference(place, tag, entry.digest)))
    refused = refusals(gate, images, destination, session.workers)
    if refused and (len(refused) == len(candidates) == 1 or (not roots.is_list and roots.entries[0].digest in refused)):
        raise next(iter(refused.values()))
    failures = tuple(
        PlanFailure.of(entry.origin or entry.digest, refused[entry.digest])
        for entry in candidates
        if entry.digest in refused
    )
    admitted = tuple(entry for entry in roots.entries if entry.digest not in refused)
    return replace(roots, entries=admitted), failures


def _choose_platforms(
    session: Session, roots: Roots, platforms: Sequence[Platform]
) -> tuple[Roots, dict[Digest, Manifest]]:
    """Returns the roots with every index that has more than the wanted platforms replaced by its rewritten form, and
    the rewritten indexes. Without platforms, all stay as they are."""
    if not platforms:
        return roots, {}
    from oci.platforms import narrowed  # noqa: PLC0415 - few copies choose platforms

    if roots.is_bundle:
        raise InvalidInput("platforms can't be left out of a bundle: its lock pins whole indexes by digest")
    rewritten: dict[Digest, Manifest] = {}
    entries = []
    for entry in roots.entries:
        source = session.source(entry.places[0])
        manifest = source.get_manifest(entry.digest)
        session.cache.put(manifest.digest, manifest.raw)
        chosen = narrowed(source, manifest, platforms) if manifest.is_index else ()
        rewritten.update({index.digest: index for index in chosen})
        entries.append(replace(entry, digest=chosen[-1].digest) if chosen else entry)
    return replace(roots, entries=tuple(entries)), rewritten


def _destination(session: Session, name: StoreName) -> Source:
    """Returns the store that the plan is compared with. An archive counts as empty: it is always written anew."""
    if not isinstance(name, ArchiveName):
        return session.destination(name)
    from oci.archive.source import EmptyArchive  # noqa: PLC0415 - a copy between registries reads no archive

    return EmptyArchive(name)


def _drop_tags_in_place(session: Session, destination: Source, entries: Iterable[Entry]) -> None:
    """Takes off the tags of entries that show the right image at the destination already."""
    moving = set(tags_to_move(session, destination, [(tag, entry.digest) for entry in entries for tag in entry.tags]))
    for entry in entries:
        entry.tags = tuple(tag for tag in entry.tags if (tag, entry.digest) in moving)


def _ask_destination(
    store: Source, roots: Roots, snapshot: Snapshot | None, *, repair: bool
) -> tuple[DestinationState, tuple[str, ...]]:
    """Asks the destination for the tags that the root is to get, for the root itself, and whether there is any tag at
    all, unless the snapshot says so. Returns what it has, as far as that is known by then, and the tags of the root to
    move."""
    present: dict[Digest, Descriptor] = {}
    moving = []
    for tag in roots.tags:
        descriptor = None if snapshot and tag in snapshot.moving else store.head_manifest(tag)
        if descriptor is not None:
            present[descriptor.digest] = descriptor
        if descriptor is None or descriptor.digest != roots.entries[0].digest:
            moving.append(tag)
    fresh = snapshot is not None and snapshot.fresh
    if not fresh:
        root = store.head_manifest(roots.entries[0].digest) if roots.entries and not present else None
        if root is not None:
            present = {root.digest: root}
        fresh = snapshot is None and not present and _has_no_tags(store)
    return DestinationState(store, present, fresh=fresh, repair=repair), tuple(moving)


def _has_no_tags(destination: Source) -> bool:
    """Costs a request and saves one for each image: a repository without tags counts as empty. A registry that denies
    the list (Artifactory, GHCR: where nothing exists; ECR, Chainguard: always) is asked for each manifest."""
    try:
        return next(iter(destination.tags()), None) is None
    except NotFound:
        return True
    except (Denied, Unauthorized):
        return False


def _check_kinds(roots: Roots, walk: Walk, request: RelocationRequest, destination: DestinationState) -> None:
    """Raises InvalidInput for a bundle that was asked for as an image, an image that was asked for as a bundle, and an
    ImagesLock that lists a bundle."""
    bundles = [node for node in walk.nodes.values() if node.is_bundle]
    if roots.is_list:
        if bundles and request.lock:
            raise InvalidInput(
                f"{request.lock} lists the bundle {bundles[0].origin}",
                hint="copy that bundle by itself, or make a bundle with these images",
                sentence="Unable to copy bundles using an Images Lock file (hint: Create a bundle with these images)",
            )
        return
    root = walk.nodes[roots.entries[0].digest]
    if roots.is_bundle and not root.is_bundle:
        raise InvalidInput(f"{roots.source} is a plain image", hint=AS_IMAGE, sentence=NOT_A_BUNDLE)
    if not request.image or request.shallow or request.image_may_be_bundle:
        return
    # What the destination has was not read. A bundle that was copied has its locations image beside it.
    if root.is_bundle or (root.present and destination.has_locations(root.digest)):
        raise InvalidInput(
            f"{roots.source} is a bundle",
            hint=AS_BUNDLE,
            sentence="Expected bundle flag when copying a bundle (hint: Use -b instead of -i for bundles)",
        )


def _readable_names(nodes: Iterable[Node], rules: Sequence[tagnames.NameRule]) -> dict[Digest, str]:
    """The tag of each listed image for which a rule has one; the first rule that does counts. Raises InvalidInput when
    two images would get the same name."""
    named: dict[str, Node] = {}
    for node in nodes:
        if node.role not in (Role.LISTED, Role.NESTED) or node.origin is None:
            continue
        tag = next((tag for rule in rules if (tag := rule.tag_of(node.origin, node.digest, node.annotations))), "")
        other = named.setdefault(tag, node)
        if tag and other is not node:
            raise InvalidInput(
                f"{node.origin} and {other.origin} would both be named {tag!r}",
                hint="put {short} or {path} into the rule, or give one of them a rule of its own",
            )
    return {node.digest: tag for tag, node in named.items() if tag}


def children_first(nodes: Mapping[Digest, Node]) -> list[Node]:
    """Returns every node after all that it lists; roots last. Independent of the order in which answers came."""
    ordered: dict[Digest, Node] = {}

    def add(node: Node) -> None:
        for child in node.children:
            if child in nodes and child not in ordered:
                add(nodes[child])
        ordered.setdefault(node.digest, node)

    for node in sorted(nodes.values(), key=lambda node: (node.role is Role.ROOT, node.digest)):
        add(node)
    return list(ordered.values())


_PASSED_ON = {*Node.__struct_fields__} & {*PlannedManifest.__struct_fields__} - {"blobs", "tags"}
"""Fields of a planned manifest that are those of its node."""


def planned_manifest(
    node: Node, request: RelocationRequest, tags: Sequence[str], rewritten: Mapping[Digest, Manifest]
) -> PlannedManifest:
    """Returns a node as the plan has it, with the tags to move and the keep-alive tag that the request asks for."""
    index = rewritten.get(node.digest)
    # Children and referrers are held by what they belong to.
    is_held = node.role in (Role.CHILD, Role.REFERRER) or (
        request.tag_keeps_alive and node.role is Role.ROOT and bool(tags)
    )
    # As imgpkg does: what a lock lists is named after the store it was read from, everything else after its origin.
    origin = None if request.lock else node.origin
    named_after = str(origin or f"{node.store}@{node.digest}")
    based = tagnames.repo_based(named_after, node.digest) if request.repo_based_tags else ""
    return PlannedManifest(
        **{name: getattr(node, name) for name in _PASSED_ON},
        blobs=tuple(blob.digest for blob in node.blobs),
        tags=tuple(tags),
        keep_alive="" if is_held else based or tagnames.keep_alive(node.digest),
        raw=index.raw.decode() if index else "",
        rewritten_from=node.origin.digest if index and node.origin else None,
    )


def _planned_bundle(bundle: Node, nodes: Mapping[Digest, Node]) -> PlannedBundle:
    """Returns what its locations image is to say: of the images that it lists, those that could be read."""
    listed = {reference for reference in bundle.listed or () if digest_in(reference) in nodes}
    entries = [(reference, nodes[digest_in(reference)].is_bundle) for reference in sorted(listed, key=str)]
    return PlannedBundle(digest=bundle.digest, entries=tuple(entries))


def planned_blobs(nodes: Iterable[Node], mounted: Mapping[Digest, Repository]) -> tuple[PlannedBlob, ...]:
    """Returns each blob once, with the stores it is read from: those of its images, or the repository to mount it
    from."""
    stores: dict[Digest, dict[StoreName, None]] = {}
    blobs: dict[Digest, Descriptor] = {}
    for node in nodes:
        for blob in node.blobs:
            blobs.setdefault(blob.digest, blob)
            stores.setdefault(blob.digest, {})[mounted.get(blob.digest, node.store)] = None
    return tuple(
        PlannedBlob(
            digest=blob.digest,
            size=blob.size,
            media_type=blob.media_type,
            stores=tuple(stores[blob.digest]),
            urls=() if blob.distributable else blob.urls,
        )
        for blob in sorted(blobs.values(), key=lambda blob: (-blob.size, blob.digest))
    )
