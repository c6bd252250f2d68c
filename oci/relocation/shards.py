"""Cutting a plan into shards: lists of its images, which other machines can carry out as plans of their own, and those
that planning has found whole before it has found all."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from oci.digest import Digest
from oci.meter import Receipt
from oci.reference import StoreName
from oci.relocation.fanout import SMALL
from oci.relocation.plan import Node, Plan, PlannedManifest, Role
from oci.relocation.planner import children_first, planned_blobs, planned_manifest
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session

_REQUEST = 256 << 10
"""What a request weighs in bytes: small images are made of round trips, in which a busy line would carry this."""
_MOST_IMAGES = 500
"""In a shard: it is packed, sent and answered for as a whole."""


def weight_of(receipt: Receipt) -> int:
    """Returns the weight of the bytes that have come to the destination, those of blobs that are being sent too, and of
    the requests that were made."""
    return receipt.bytes_moved + _REQUEST * receipt.total_requests


class Weights:
    """What images weigh: bytes, with each request counted as some more."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._weights = {blob.digest: blob.size + 3 * _REQUEST for blob in plan.blobs}
        self._weights.update({part.digest: 0 if part.present else 2 * _REQUEST for part in plan.manifests})
        self._parts: dict[Digest, set[Digest]] = {}

    def of_images(self, images: Iterable[Digest], *, moved: Collection[Digest] = ()) -> int:
        """Returns the weight of images, with what they share counted once, and without the blobs in `moved`."""
        parts: set[Digest] = set().union(*(self.parts(self.plan.by_digest[digest]) for digest in images))
        return self.of_parts(parts.difference(moved))

    def of_parts(self, parts: Iterable[Digest]) -> int:
        return sum(self._weights[part] for part in parts)

    def seconds_left(self, moving: Mapping[Digest, int], before: Mapping[Digest, int], seconds: float) -> float:
        """Returns how long the slowest blob on its way takes yet, 0 where none is known to move. Both map blobs to the
        bytes read of them: now, and so many `seconds` before."""
        blobs = self.plan.blob_by_digest
        times = [
            (blobs[digest].size - read) * seconds / (read - before[digest])
            for digest, read in moving.items()
            if digest in blobs and 0 <= before.get(digest, read) < read
        ]
        return max(times, default=0.0)

    def parts(self, image: PlannedManifest) -> set[Digest]:
        """Returns the digests of everything below."""
        if image.digest not in self._parts:
            below = list(self.plan.below(image))
            parts = {manifest.digest for manifest in below}.union(*map(_missing_blobs, below))
            self._parts[image.digest] = parts
        return self._parts[image.digest]


def cut(plan: Plan, images: Sequence[PlannedManifest], *, workers: int, least: float) -> list[list[Digest]]:
    """Cuts images into shards for so many workers that take one after the other. The heaviest come first, each of half
    of what an even share of the rest would be; the last have a weight of `least`, so that no worker waits long for
    another. The same images give the same shards.

    Images that share big blobs stay together as far as that leaves the shards even, so that a blob is seldom moved
    twice; an image that is also part of an index stays with it.
    """
    weights = Weights(plan)
    total = weights.of_images(image.digest for image in images)
    groups = _groups(weights, images, limit=total / (2 * workers))
    remaining = sum(group.weight for group in groups)
    shards: list[list[Digest]] = []
    room = 0.0
    for group in sorted(groups, key=lambda group: (-group.weight, group.images[0].digest)):
        if room < group.weight / 2 or not shards or len(shards[-1]) >= _MOST_IMAGES:
            shards.append([])
            room = max(least, remaining / (2 * workers))
        shards[-1] += [image.digest for image in sorted(group.images, key=lambda image: -plan.bytes_below(image))]
        room -= group.weight
        remaining -= group.weight
    return shards


def stores_of(plan: Plan) -> set[tuple[str, StoreName]]:
    """Returns the stores that a plan reads from and writes to, each with its side: "source" or "destination"."""
    sources = {store for blob in plan.blobs for store in blob.stores}.union(part.store for part in plan.manifests)
    return {("destination", plan.destination), *(("source", store) for store in sources)}


def has_limits(session: Session) -> bool:
    """Says whether a person has set for any registry how much a second it is asked or sent."""
    options = [each for side in session.access.values() for each in (side.default, *side.per_registry.values())]
    return any(each.bandwidth or each.requests_per_second for each in options)


def limited_stores(session: Session, stores: Iterable[tuple[str, StoreName]]) -> list[str]:
    """Returns the registries for which a person has set how much a second they are asked or sent, of stores with their
    sides; "" stands for the stores that aren't registries."""
    limited = set()
    for side, name in {(side, store.registry) for side, store in stores}:
        access = session.access[side]
        if access.rate(name)[1] or access.settings(name).requests_per_second:
            limited.add(name)
    return sorted(limited)


def part_of(plan: Plan, images: Iterable[PlannedManifest]) -> Plan:
    """Returns a plan to transfer `images`, with what is below them and nothing else: no names, which the whole gets
    last."""
    chosen = {image.digest for image in images}
    below = {manifest.digest for digest in chosen for manifest in plan.below(plan.by_digest[digest])}
    blobs = {blob for digest in below for blob in _missing_blobs(plan.by_digest[digest])}
    manifests = (
        replace(manifest, role=manifest.role if manifest.digest in chosen else Role.CHILD, tags=(), annotations={})
        for manifest in plan.manifests
        if manifest.digest in below
    )
    return replace(
        plan,
        manifests=tuple(manifests),
        blobs=tuple(blob for blob in plan.blobs if blob.digest in blobs),
        bundles=(),
        failures=(),
        skipped_layers=(),
    )


def joined(plan: Plan, other: Plan) -> Plan:
    """Returns a plan to transfer what either has; both are parts of one."""
    manifests = {manifest.digest: manifest for manifest in (*plan.manifests, *other.manifests)}
    blobs = {blob.digest: blob for blob in (*plan.blobs, *other.blobs)}
    return replace(
        plan,
        manifests=tuple(manifests.values()),
        blobs=tuple(sorted(blobs.values(), key=lambda blob: -blob.size)),
        fresh=plan.fresh and other.fresh,
    )


def with_present_marked(session: Session, plan: Plan) -> Plan:
    """The plan with the images that the destination has by now marked as present: a request for each image. A bundle's
    own manifest is pushed last, and is not asked for."""
    images = [image.digest for image in plan.to_transfer if not image.is_bundle]
    heads = session.workers.map(session.destination(plan.destination).head_manifest, images)
    present = {digest for digest, head in zip(images, heads, strict=True) if head is not None}
    manifests = (
        replace(manifest, present=True) if manifest.digest in present else manifest for manifest in plan.manifests
    )
    return replace(plan, manifests=tuple(manifests), fresh=False)


class Preview:
    """What planning has found so far: images that other machines can transfer while it goes on."""

    def __init__(self, request: RelocationRequest, give: Callable[[Plan, float], None], *, every: float) -> None:
        """`give` gets, at most every so many seconds and in the thread that plans, a plan of the images that were found
        since, and the share of all nodes that was looked at, over 0 and up to 1, as far as that is known."""
        self._request = request
        self._give = give
        self._every = every
        self._last_time = time.monotonic()
        self._nodes: dict[Digest, Node] = {}
        self._images: list[Node] = []
        """Those that were found, and not given yet."""
        self._has_root = False
        self._ended = False

    @staticmethod
    def is_possible(request: RelocationRequest) -> bool:
        """Says whether a request has images that are known to be right before all are: those that a bundle or a lock
        lists, from registry to registry."""
        if request.archive or request.image or request.platforms or request.destination.is_local:
            return False
        return not (request.bundle and request.reference.repository.is_local)

    def see(self, fresh: bool, node: Node, to_come: int) -> None:
        is_new = node.digest not in self._nodes  # a plan may be made again
        self._nodes[node.digest] = node
        self._has_root = self._has_root or node.role is Role.ROOT
        if node.is_bundle and not self._has_root:
            self._ended = True  # a lock that lists a bundle is refused as a whole
        if is_new and node.role is Role.LISTED and not node.present and not node.is_bundle:
            self._images.append(node)
        if self._ended or not self._images or time.monotonic() - self._last_time < self._every:
            return
        self._last_time = time.monotonic()
        whole: list[Node] = []
        partial: list[Node] = []
        for image in self._images:
            (whole if self._nodes.keys() >= {*self._below(image)} else partial).append(image)
        if whole:
            self._images = partial
            self._give(self._part(whole, fresh), len(self._nodes) / (len(self._nodes) + to_come))

    def _below(self, node: Node) -> Iterable[Digest]:
        """Yields the digests below a node, as far as that is known, each once."""
        below, unvisited = {node.digest}, [node]
        while unvisited:
            for child in unvisited.pop().children:
                if child not in below:
                    below.add(child)
                    yield child
                    if child in self._nodes:
                        unvisited.append(self._nodes[child])

    def _part(self, images: Iterable[Node], fresh: bool) -> Plan:
        digests = {digest for image in images for digest in (image.digest, *self._below(image))}
        nodes = children_first({digest: self._nodes[digest] for digest in digests})
        return Plan(
            source=self._request.source_text,
            destination=self._request.destination,
            root=None,
            manifests=tuple(planned_manifest(node, self._request, node.tags, {}) for node in nodes),
            blobs=planned_blobs(nodes, {}),
            fresh=fresh,
            repair=self._request.repair,
        )


class _Group(Struct):
    """Images that stay together, with the manifests and blobs below them, each counted once."""

    images: list[PlannedManifest]
    parts: set[Digest]
    weight: int


def _groups(weights: Weights, images: Sequence[PlannedManifest], limit: float) -> list[_Group]:
    """Images with a blob in common that is worth it, in even pieces of some `limit` where they are too many for one; an
    index always with those of its children that are images of their own."""
    group_of = {
        image.digest: _Group([image], set(parts), weights.of_parts(parts))
        for image in images
        for parts in (weights.parts(image),)
    }

    def join(group: _Group, other: _Group, *, at_most: float) -> None:
        if group is other:
            return
        big, small = (group, other) if len(group.parts) >= len(other.parts) else (other, group)
        together = big.weight + weights.of_parts(small.parts - big.parts)
        if together > at_most:
            return
        big.images += small.images
        big.parts |= small.parts
        big.weight = together
        group_of.update({image.digest: big for image in small.images})

    for image in images:
        for child in weights.plan.below(image):
            if child.digest in group_of:
                join(group_of[image.digest], group_of[child.digest], at_most=float("inf"))
    holders: dict[Digest, list[Digest]] = defaultdict(list)
    for image in images:
        for part in weights.parts(image):
            holders[part].append(image.digest)
    for blob in weights.plan.blobs:
        if blob.size <= SMALL:
            break
        images_with = holders[blob.digest]
        family = {id(group): group.parts for group in (group_of[digest] for digest in images_with)}
        common = weights.of_parts([blob.digest])
        weight = weights.of_parts(set().union(*family.values())) - common
        pieces = max(1, round(weight / (limit - common))) if limit > common else 1
        for first, second in pairwise(images_with):
            join(group_of[first], group_of[second], at_most=common + weight / pieces)
    return list({id(group): group for group in group_of.values()}.values())


def _missing_blobs(manifest: PlannedManifest) -> tuple[Digest, ...]:
    return () if manifest.present else manifest.blobs
