"""Making the plan: resolve the source, walk it, compare with the destination."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from msgspec import Struct, field
from msgspec.structs import replace

from oci.bundle import tagnames
from oci.bundle.image import AS_BUNDLE, AS_IMAGE, NOT_A_BUNDLE
from oci.bundle.lockfile import ImagesLock, LockedImage, read_lock
from oci.descriptor import Descriptor, Platform, parse_json
from oci.digest import Digest
from oci.errors import Denied, InvalidInput, InvalidManifest, NotFound, Unauthorized
from oci.manifest import NESTING_LIMIT, Manifest, parse_manifest
from oci.meter import unheard
from oci.output import check_destination
from oci.reference import Repository, StoreName
from oci.relocation.plan import Entry, Node, Plan, PlannedBlob, PlannedBundle, PlannedManifest, Role, Roots
from oci.relocation.request import RelocationRequest, readable_names
from oci.relocation.session import Session
from oci.relocation.verify import admitted
from oci.relocation.walk import Walk, digest_in
from oci.store import Source, found_manifest


class Snapshot(Struct, frozen=True):
    """What a comparison has asked before, so that planning doesn't ask again."""

    tags: Mapping[str, Descriptor | None]
    """What tags show at the destination; None for a tag that it doesn't have."""
    fresh: bool = False
    """Whether the destination had no tag at all."""
    listed: Mapping[StoreName, frozenset[str]] = field(default_factory=dict)
    """The tags of source repositories."""


def resolve(session: Session, request: RelocationRequest) -> Roots:
    """Reads the lock or the archive, or asks the source what a tag means. A digest costs no request."""
    if request.archive:
        from oci.relocation.archive_source import archive_roots  # noqa: PLC0415 - for archives only

        return archive_roots(session, request)
    if request.lock:
        lock = read_lock(request.lock)
        if isinstance(lock, ImagesLock):
            return Roots(request.lock, tuple(map(_listed, lock.images)), is_list=True)
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
    return Roots(str(reference), (root,), tags, is_bundle=is_bundle)


def _listed(image: LockedImage) -> Entry:
    return Entry(
        digest=digest_in(image.image),
        places=(image.image.repository,),
        role=Role.LISTED,
        origin=image.image,
        annotations=image.annotations,
    )


OnNode: TypeAlias = Callable[[bool, Node, int], None]
"""Gets what planning finds, in its thread: is the destination fresh, a node, how many nodes are known to come."""


def make_plan(
    session: Session,
    request: RelocationRequest,
    *,
    snapshot: Snapshot | None = None,
    on_node: OnNode = unheard,
) -> Plan:
    """Walks the source and asks the destination what it has. Nothing is written.

    Raises when the root can't be read or isn't what was asked for. Any other part that can't be read is a failure in
    the plan: the rest may be transferred, and nothing is given a name.
    """
    if request.policy:
        session.gate(request.policy, signed=request.require_signatures)  # a mistake in it is found before all else
    check_destination(request.destination)
    roots, refused = admitted(session, resolve(session, request), request)
    roots, rewritten = _choose_platforms(session, roots, request)
    destination = session.compared(request.destination)
    present, tags = _compare_tags(destination, roots, snapshot)
    fresh = snapshot is not None and snapshot.fresh
    if not fresh:
        probe = destination.head_manifest(roots.entries[0].digest) if roots.entries and not present else None
        if probe is not None:
            present = {probe.digest: probe}
        fresh = snapshot is None and not present and _has_no_tags(destination)
    walk = Walk(
        session,
        request,
        destination,
        present=present,
        rewritten=rewritten,
        fresh=fresh,
        bundles=(roots.is_bundle or request.image_may_be_bundle) and not request.shallow,
        listed=snapshot.listed if snapshot else {},
    )
    walk.run(roots.entries, partial(on_node, fresh))
    _check_kinds(roots, walk, request, destination)
    if request.wanted_artifacts:
        walk.follow_attachments()
    # Of what is copied now, in one repository: an unchanged copy costs no request for what it leaves behind.
    counted = [node for node in walk.nodes.values() if not node.present and node.store == roots.entries[0].places[0]]
    ask = snapshot is None and bool(request.image)
    attached_left = walk.count_left(() if request.archive else counted, ask=ask)
    names = readable_names(walk.nodes.values(), request.names)
    heads = session.workers.map(destination.head_manifest, names.values())
    for (digest, tag), head in zip(names.items(), heads, strict=True):
        if head is None or head.digest != digest:  # else the tag is right there
            walk.nodes[digest].tags += (tag,)
    nodes = children_first(walk.nodes)
    bundles = []
    for node in nodes:
        listed = {reference for reference in node.listed or () if digest_in(reference) in walk.nodes}
        entries = [(reference, walk.nodes[digest_in(reference)].is_bundle) for reference in sorted(listed, key=str)]
        if node.listed is not None:
            bundles.append(PlannedBundle(digest=node.digest, entries=tuple(entries)))
    mounted: Mapping[Digest, Repository] = {}
    if request.archive:
        from oci.relocation.archive_source import require_missing_blobs  # noqa: PLC0415 - for archives only

        mounted = require_missing_blobs(session, request, nodes, destination)
    return Plan(
        source=roots.source,
        destination=request.destination,
        root=None if roots.is_list else roots.entries[0].digest,
        manifests=tuple(
            planned_manifest(node, request, tags if node.role is Role.ROOT else node.tags, rewritten) for node in nodes
        ),
        blobs=planned_blobs(nodes, mounted),
        bundles=tuple(bundles),
        failures=(*refused, *walk.failures, *walk.attachment_failures),
        skipped_layers=tuple((node.digest, layer) for node in nodes for layer in node.skipped_layers),
        unchanged=not tags and all(node.present and not node.tags and node.listed is None for node in nodes),
        fresh=fresh,
        repair=request.repair,
        tags=roots.tags,
        attached_left=attached_left,
        backup=request.backup,
    )


def _choose_platforms(
    session: Session, roots: Roots, request: RelocationRequest
) -> tuple[Roots, dict[Digest, Manifest]]:
    """The roots with every index that has more than the wanted platforms replaced by its rewritten form."""
    if not request.platforms:
        return roots, {}
    if roots.is_bundle:
        raise InvalidInput("platforms can't be left out of a bundle: its lock pins whole indexes by digest")
    platforms = request.wanted_platforms
    rewritten: dict[Digest, Manifest] = {}
    entries = []
    for entry in roots.entries:
        source = session.source(entry.places[0])
        manifest = source.get_manifest(entry.digest)
        session.cache.put(manifest.digest, manifest.raw)
        chosen = choose(source, manifest, platforms) if manifest.is_index else ()
        rewritten.update({index.digest: index for index in chosen})
        entries.append(replace(entry, digest=chosen[-1].digest) if chosen else entry)
    return replace(roots, entries=tuple(entries)), rewritten


def _compare_tags(
    destination: Source, roots: Roots, snapshot: Snapshot | None
) -> tuple[dict[Digest, Descriptor], tuple[str, ...]]:
    """Gives the manifests that the wanted tags show at the destination, and the tags that have to be moved."""
    present: dict[Digest, Descriptor] = {}
    moved = []
    for tag in roots.tags:
        known_before = snapshot is not None and tag in snapshot.tags
        descriptor = snapshot.tags[tag] if snapshot and known_before else destination.head_manifest(tag)
        if descriptor is not None:
            present[descriptor.digest] = descriptor
        if descriptor is None or descriptor.digest != roots.entries[0].digest:
            moved.append(tag)
    return present, tuple(moved)


def _has_no_tags(destination: Source) -> bool:
    """Costs a request and saves one for each image: a repository without tags counts as empty. A registry that denies
    the list (Artifactory, GHCR: where nothing exists; ECR, Chainguard: always) is asked for each manifest."""
    try:
        return next(iter(destination.tags()), None) is None
    except NotFound:
        return True
    except (Denied, Unauthorized):
        return False


def _check_kinds(roots: Roots, walk: Walk, request: RelocationRequest, destination: Source) -> None:
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
    if root.is_bundle or (root.present and destination.head_manifest(tagnames.locations(root.digest))):
        raise InvalidInput(
            f"{roots.source} is a bundle",
            hint=AS_BUNDLE,
            sentence="Expected bundle flag when copying a bundle (hint: Use -b instead of -i for bundles)",
        )


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
"""What a plan says of a manifest as the walk has it."""


def planned_manifest(
    node: Node, request: RelocationRequest, tags: Sequence[str], rewritten: Mapping[Digest, Manifest]
) -> PlannedManifest:
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


_ATTESTED = "vnd.docker.reference.digest"
"""BuildKit's annotation of an attestation manifest: the digest of the image that it belongs to."""


def choose(source: Source, index: Manifest, platforms: Sequence[Platform]) -> tuple[Manifest, ...]:
    """Returns the index, rewritten to have only `platforms`, after the nested indexes that had to be rewritten for it.

    Empty when the index has nothing else. A platform that the index lacks is skipped; raises InvalidInput when it has
    none of them. Attestations stay with the image they belong to.
    """
    narrowed: dict[Digest, Manifest | None] = {}
    """Each index as it stays: the same, a rewritten one, or None when nothing of it is wanted."""

    def narrow(index: Manifest, depth: int) -> None:
        if depth > NESTING_LIMIT:
            raise InvalidManifest(f"{source.name}@{index.digest}: nested deeper than {NESTING_LIMIT} levels")
        chosen: set[Digest] = set()
        for child in index.children:
            if child.is_index:
                if child.digest not in narrowed:  # once, however often it is listed
                    try:
                        narrow(source.get_manifest(child.digest), depth + 1)
                    except InvalidInput:
                        narrowed[child.digest] = None
                if narrowed[child.digest] is not None:
                    chosen.add(child.digest)
            elif child.platform is None or any(child.platform.matches(platform) for platform in platforms):
                chosen.add(child.digest)
        chosen.update(child.digest for child in index.children if child.annotations.get(_ATTESTED) in chosen)
        if not chosen:
            has = ", ".join(sorted({str(child.platform) for child in index.children if child.platform})) or "none"
            raise InvalidInput(
                f"{source.name}@{index.digest} has no image for {', '.join(map(str, platforms))}; it has {has}",
                hint="choose one of these",
            )
        listed = {child.digest for child in index.children}
        nested = {digest: manifest for digest in listed & chosen if (manifest := narrowed.get(digest)) is not None}
        same = chosen == listed and all(manifest.digest == digest for digest, manifest in nested.items())
        narrowed[index.digest] = index if same else _rewrite(index, chosen, nested)

    narrow(index, 0)
    return tuple(manifest for digest, manifest in narrowed.items() if manifest and manifest.digest != digest)


def _rewrite(index: Manifest, chosen: set[Digest], nested: Mapping[Digest, Manifest]) -> Manifest:
    """Every key and every chosen entry stays as it was, but for digest and size of nested indexes."""
    body = parse_json(index.raw)
    entries = [entry for entry in body["manifests"] if entry["digest"] in chosen]
    for number, entry in enumerate(entries):
        if manifest := nested.get(entry["digest"]):
            entries[number] = {**entry, "digest": manifest.digest, "size": manifest.size}
    raw = json.dumps({**body, "manifests": entries}, separators=(",", ":"), ensure_ascii=False).encode()
    return parse_manifest(raw, index.media_type)
