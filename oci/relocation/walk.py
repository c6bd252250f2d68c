"""The walk over a source: from a root to every manifest that belongs to it, asking as little as possible.

A manifest that the destination has by digest ends the walk there: the destination has everything below it. A bundle
stands for its own files only. For what it lists stands its locations image, which is written last.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext

from msgspec.structs import asdict

from oci.bundle import image as bundle_image
from oci.bundle import tagnames
from oci.bundle.lockfile import references_in
from oci.descriptor import Descriptor
from oci.digest import Digest, hex_of
from oci.errors import Denied, InvalidManifest, NotFound, StoreError, TransshipError, Unauthorized, Unavailable
from oci.manifest import NESTING_LIMIT, Manifest, parse_manifest
from oci.meter import unheard
from oci.reference import ArchiveName, Reference, StoreName
from oci.relocation.plan import Entry, Node, PlanFailure, Role, merged
from oci.relocation.session import Session
from oci.signatures.artifacts import ArtifactSelection
from oci.signatures.attached import DEPTH, Attachments
from oci.store import Source

_BUNDLE_ROLES = (Role.ROOT, Role.NESTED, Role.LISTED)


class DestinationState:
    """What the destination of a plan has. It is asked for a manifest unless the answer is known."""

    def __init__(self, store: Source, present: Mapping[Digest, Descriptor], *, fresh: bool, repair: bool) -> None:
        """`present` are manifests that it has; with `fresh` it has nothing else. With `repair` it counts as having
        none: a manifest that is there may have lost what is below it."""
        self.store = store
        self.fresh = fresh
        self._present = dict(present)
        self._repair = repair

    def add(self, descriptors: Iterable[Descriptor]) -> None:
        """Notes manifests that it has."""
        self._present.update((descriptor.digest, descriptor) for descriptor in descriptors)

    def head_manifest(self, digest: Digest) -> Descriptor | None:
        if self._repair:
            return None
        present = self._present.get(digest)
        return present if present is not None or self.fresh else self.store.head_manifest(digest)

    def has_locations(self, bundle: Digest) -> bool:
        """Says whether it has the locations image of a bundle, and so all that the bundle lists."""
        return self.store.head_manifest(tagnames.locations(bundle)) is not None


class Walk:
    """One walk for a plan: `run` it on the roots, then read `nodes` and `failures`; `follow_attachments` goes on from
    there."""

    def __init__(
        self,
        session: Session,
        destination: DestinationState,
        selection: ArtifactSelection,
        *,
        rewritten: Mapping[Digest, Manifest],
        bundles: bool,
        below_present_bundles: bool,
        all_layers: bool,
        tag_lists: Mapping[StoreName, frozenset[str]],
    ) -> None:
        """`selection` says which attached artifacts travel along. `rewritten` are indexes that exist nowhere yet. With
        `bundles` the walk follows bundles to the images that they list, with `below_present_bundles` also where the
        destination has all that they list. With `all_layers`, layers that may not be distributed are included.
        `tag_lists` are those of sources that were read before."""
        self.nodes: dict[Digest, Node] = {}
        self.failures: list[PlanFailure] = []
        self.attachment_failures: list[PlanFailure] = []
        self._session = session
        self._destination = destination
        self._rewritten = rewritten
        self._bundles = bundles
        self._below_present_bundles = below_present_bundles
        self._all_layers = all_layers
        self._with_attachments = bool(selection)
        """Goes on below what the destination has: something may have been attached there since."""
        self._attachments = Attachments(
            selection,
            session.workers,
            listed=tag_lists,
            failed=lambda subject, error: self.attachment_failures.append(PlanFailure.of(subject, error)),
            noted=lambda store, text: session.meter.fallback(str(store.registry or store), text),
        )
        self._lacking: set[StoreName] = set()
        """Places that lacked an image which may be in another place, too: they are asked last from then on."""
        self._tried: set[StoreName] = set()
        """Places that were asked for such an image."""
        self._first_tries: dict[StoreName, threading.Lock] = {}
        """Locks, each for the first such request to a place. Fifty threads must not ask a bundle's repository in vain
        that has none of the images in the bundle's lock."""
        self._unreachable: set[str] = set()
        """Registries that couldn't be reached: they are asked last from then on."""

    def run(self, roots: Iterable[Entry], on_node: Callable[[Node, int], None] = unheard) -> None:
        """Walks level by level, so that no thread waits for another thread of the same pool. `on_node` gets each node,
        and how many entries are still to be looked at, as far as that is known."""
        level = self._distinct(roots)
        while level:
            self._session.cancel.check()
            below: list[Entry] = []
            visits = self._session.workers.map(self._visit_or_note_failure, level)
            for number, (entry, (node, more)) in enumerate(zip(level, visits, strict=True), 1):
                if node is not None:
                    self.nodes[entry.digest] = node
                    below.extend(more)
                    on_node(node, len(level) - number + len(below))
            level = self._distinct(below)

    def _distinct(self, entries: Iterable[Entry]) -> list[Entry]:
        """Gives one entry for each new digest. Other reasons for the same digest are merged into it, or into its
        node."""
        distinct: dict[Digest, Entry] = {}
        for entry in entries:
            if entry.digest in self.nodes:
                self.nodes[entry.digest].merge(entry)
            elif entry.digest in distinct:
                distinct[entry.digest] = merged(distinct[entry.digest], entry)
            else:
                distinct[entry.digest] = entry
        return list(distinct.values())

    def _visit_or_note_failure(self, entry: Entry) -> tuple[Node | None, list[Entry]]:
        """Raises for a root. Any other failure is noted, and the walk goes on without it."""
        try:
            return self._visit(entry)
        except TransshipError as error:
            if entry.role is Role.ROOT:
                raise
            self.failures.append(PlanFailure.of(entry.origin or f"{entry.places[0]}@{entry.digest}", error))
            return None, []

    def _visit(self, entry: Entry) -> tuple[Node, list[Entry]]:
        if entry.depth > NESTING_LIMIT:
            raise InvalidManifest(f"{entry.places[0]}@{entry.digest}: nested deeper than {NESTING_LIMIT} levels")
        present = self._destination.head_manifest(entry.digest)
        if present is not None and not self._may_lack_images(entry, present):
            node = Node(
                **asdict(entry),
                media_type=present.media_type,
                size=present.size,
                store=self._destination.store.name,
                is_bundle=bool(entry.hint),
                present=True,
            )
            if not (self._with_attachments and present.is_index):
                return node, []
            index = self._destination.store.get_manifest(entry.digest)
            self._destination.add(index.child_manifests)
            return node, self._children(entry, self._session.source(entry.places[0]).name, index)
        source, manifest = self._find(entry, present=present is not None)
        self._session.cache.put(manifest.digest, manifest.raw)
        node = self._node(entry, source.name, manifest, present=present is not None)
        if manifest.is_index:
            return node, [] if node.present else self._children(entry, source.name, manifest)
        if entry.role not in _BUNDLE_ROLES or not bundle_image.is_bundle(source, manifest, self._session.read_small):
            return node, []
        return node, self._open_bundle(entry, source, manifest, node)

    def _may_lack_images(self, entry: Entry, present: Descriptor) -> bool:
        """Says whether a manifest at the destination may be a bundle whose images are not there."""
        if not self._bundles or entry.role not in _BUNDLE_ROLES or present.is_index or entry.hint is False:
            return False
        return self._with_attachments or not (entry.hint and self._ends_at(entry.digest))

    def _ends_at(self, bundle: Digest) -> bool:
        """Says whether the walk need not look below a bundle: the destination has all that the bundle lists."""
        return not self._below_present_bundles and self._destination.has_locations(bundle)

    def _node(self, entry: Entry, store: StoreName, manifest: Manifest, *, present: bool) -> Node:
        skipped = tuple(layer.digest for layer in manifest.layers if not (layer.distributable or self._all_layers))
        blobs = tuple(blob for blob in manifest.blobs if blob.digest not in skipped)
        return Node(
            **{**asdict(entry), "digest": manifest.digest},
            media_type=manifest.media_type,
            size=manifest.size,
            store=store,
            children=tuple(dict.fromkeys(child.digest for child in manifest.child_manifests)),
            blobs=() if present else (*blobs, *manifest.child_blobs),
            skipped_layers=skipped,
            present=present,
        )

    def _children(self, entry: Entry, store: StoreName, index: Manifest) -> list[Entry]:
        return [
            Entry(
                digest=child.digest,
                places=(store, *(place for place in entry.places if place != store)),
                role=Role.CHILD,
                platform=str(child.platform or ""),
                depth=entry.depth + 1,
            )
            for child in index.child_manifests
        ]

    def _open_bundle(self, entry: Entry, source: Source, manifest: Manifest, node: Node) -> list[Entry]:
        node.is_bundle = True
        if node.role is Role.LISTED:
            node.role = Role.NESTED
        if not self._bundles:
            return []
        whole = node.present and self._ends_at(node.digest)
        if whole and not self._with_attachments:
            return []
        lock = bundle_image.read_images_lock(source, manifest, self._session.read_small)
        home = source if source.name in entry.places else self._session.source(self._ordered(entry.places)[0])
        locations = (
            bundle_image.read_locations(home, manifest.digest, self._session.read_small) if lock.images else None
        )
        # An archive is read where nothing else can be reached: no place but the archive is tried.
        sealed = isinstance(home.name, ArchiveName)
        hints = {str(image.image): image.is_bundle for image in locations.images} if locations else {}
        node.listed = None if whole else references_in(lock)
        node.children = tuple(dict.fromkeys(map(digest_in, references_in(lock))))
        return [
            Entry(
                digest=digest_in(image.image),
                places=tuple(dict.fromkeys((home.name, *entry.places, *(() if sealed else (image.image.repository,))))),
                role=Role.LISTED,
                origin=image.image,
                hint=hints.get(str(image.image)),
                annotations=image.annotations,
                depth=entry.depth + 1,
            )
            for image in lock.images
        ]

    def _find(self, entry: Entry, *, present: bool) -> tuple[Source, Manifest]:
        """Returns the manifest from the first place that has it; from the destination when that has it, which costs the
        source no quota."""
        if present:
            return self._destination.store, self._destination.store.get_manifest(entry.digest)
        if entry.digest in self._rewritten:
            return self._session.source(entry.places[0]), self._rewritten[entry.digest]
        raw = self._session.cache.get(entry.digest) if len(entry.places) == 1 else None
        if raw is not None:
            return self._session.source(entry.places[0]), parse_manifest(raw, limit=len(raw))
        errors: list[TransshipError] = []
        places = list(entry.places)
        while places:
            place = self._ordered(places)[0]
            has_others = len(places) > 1
            is_first_try = has_others and place not in self._tried
            with self._first_tries.setdefault(place, threading.Lock()) if is_first_try else nullcontext():
                if self._ordered(places)[0] != place:
                    continue  # the answer to another thread has put the place last
                places.remove(place)
                source: Source = self._session.source(place)
                try:
                    return source, source.get_manifest(entry.digest)
                except NotFound as error:
                    self._lacking.add(place)
                    errors.append(error)
                except StoreError as error:
                    if isinstance(error, Unavailable) and place.registry:
                        self._unreachable.add(place.registry)
                    errors.append(error)
                finally:
                    if has_others:
                        self._tried.add(place)
        raise _in_no_place(entry, errors)

    def _ordered(self, places: Sequence[StoreName]) -> list[StoreName]:
        """Puts repositories that lacked other images, and registries that couldn't be reached, last."""
        return sorted(places, key=lambda place: (place.registry in self._unreachable, place in self._lacking))

    def follow_attachments(self) -> None:
        """Walks on to all that is attached to the nodes, and to that in turn, `DEPTH` times."""
        looked: set[Digest] = set()
        for depth in range(DEPTH + 1):
            new = [node for digest, node in self.nodes.items() if digest not in looked]
            looked.update(node.digest for node in new)
            entries = self._attached(new)
            if depth == DEPTH and any(entry.digest not in self.nodes for entry in entries):
                message = f"attachments of attachments are followed {DEPTH} times, and there are more"
                failure = PlanFailure(subject=str(entries[0].places[0]), message=message, retryable=False)
                self.attachment_failures.append(failure)
                return
            self.run(entries)
            if not entries:
                return

    def count_left(self, nodes: Iterable[Node], *, ask: bool) -> int:
        """How many attached artifacts were seen and left behind. With `ask`, the tag list of their source is read for
        it, where it wasn't yet and something may be left."""
        for source, subjects in self._by_home(nodes):
            self._attachments.count_left(source, subjects, ask=ask)
        return len(self._attachments.left_out)

    def _attached(self, nodes: Iterable[Node]) -> list[Entry]:
        """Lists what is attached to nodes, each looked for where its node comes from."""
        entries: list[Entry] = []
        for source, subjects in self._by_home(nodes):
            artifacts = self._attachments.of(source, subjects)
            tagged = [(artifact.tag, artifact.digest) for artifact in artifacts if artifact.tag]
            moving = tags_to_move(self._session, self._destination.store, tagged)
            entries += [
                Entry(
                    digest=artifact.digest,
                    places=(source.name,),
                    role=Role.SIGNATURE if artifact.tag else Role.REFERRER,
                    tags=(artifact.tag,) if (artifact.tag, artifact.digest) in moving else (),
                    annotations=artifact.annotations,
                )
                for artifact in artifacts
            ]
        return entries

    def _by_home(self, nodes: Iterable[Node]) -> list[tuple[Source, list[Digest]]]:
        by_store: dict[StoreName, list[Digest]] = {}
        nodes = list(nodes)
        for node, store in zip(nodes, self._session.workers.map(self._home, nodes), strict=True):
            if store is not None:
                by_store.setdefault(store, []).append(node.digest)
        return [(self._session.source(store), subjects) for store, subjects in by_store.items()]

    def _home(self, node: Node) -> StoreName | None:
        """Where a node comes from; None for one that the destination has and none of its places, where nothing can have
        been attached to it since."""
        if not node.present:
            return node.store
        if len(node.places) == 1:
            return node.places[0]
        for place in node.places:
            try:
                if self._session.source(place).head_manifest(node.digest) is not None:
                    return place
            except (NotFound, Unauthorized, Denied):
                continue
            except TransshipError as error:
                subject = f"what is attached to {place}@{node.digest}"
                self.attachment_failures.append(PlanFailure.of(subject, error))
                return None
        return None


def tags_to_move(
    session: Session, destination: Source, tagged: Sequence[tuple[str, Digest]]
) -> list[tuple[str, Digest]]:
    """Returns those of some tags, each with the image that it is to show, that show another image at the destination
    or none. Costs a request for each."""
    heads = session.workers.map(destination.head_manifest, [tag for tag, _ in tagged])
    return [
        (tag, digest)
        for (tag, digest), head in zip(tagged, heads, strict=True)
        if head is None or head.digest != digest
    ]


def digest_in(reference: Reference) -> Digest:
    if reference.digest is None:
        raise InvalidManifest(f"{reference}: expected a digest reference")
    return reference.digest


def _in_no_place(entry: Entry, errors: list[TransshipError]) -> TransshipError:
    """Returns the error for a manifest that none of its places gave, with what each of them said."""
    if len(errors) == 1:
        return errors[0]
    lead = ([error for error in errors if not isinstance(error, NotFound)] or errors)[-1]
    if not isinstance(lead, StoreError):
        return lead
    # The digest and the hint stand once, in the whole.
    digest = hex_of(entry.digest)
    attempts = [
        f"{error.store}: {error.message}"
        if isinstance(error, StoreError) and "://" not in error.message
        else error.message
        for error in errors
    ]
    tried = "; ".join(attempt.replace(digest, f"{digest[:12]}…") for attempt in attempts)
    return type(lead)(
        f"it is in none of {len(errors)} places: {tried}",
        side="source",
        subject=str(entry.origin or entry.digest),
        operation="looking for",
        status=lead.status,
        code=lead.code,
        retryable=any(error.retryable for error in errors),
        hint=lead.hint or "check that the reference exists and that this identity may read it",
    )
