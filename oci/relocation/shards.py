"""Cutting a plan into shards: plans of their own, each small enough to be sent to another machine and carried out
there, whose images together are those of the whole."""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from oci.digest import Digest
from oci.output import to_dict
from oci.relocation.fanout import SMALL
from oci.relocation.plan import Plan, PlannedBlob, PlannedManifest, Role
from oci.relocation.session import Session

TEXT_LIMIT = 200_000
"""Characters of a shard as JSON: a scheduler takes 512 KB of parameters, and its database keeps them."""

_REQUEST = 256 << 10
"""What a request weighs in bytes: small images are made of round trips, in which a busy line would carry this."""


class Cut(Struct, frozen=True, kw_only=True):
    """Every image that has to be transferred is in one of the `shards`, or among those to `keep`: bundles, whose
    manifests are written last and by one hand, and what is too long to be sent."""

    shards: tuple[Plan, ...]
    keep: Plan


def weight(plan: Plan) -> int:
    """Bytes that `cut` can share out, with each request counted as some more of them."""
    sizes = _Sizes(plan)
    return sizes.weight(sizes.parts(image for image in plan.to_transfer if not image.is_bundle))


def cut(plan: Plan, *, count: int = 0, shard_bytes: int = 0, text_limit: int = TEXT_LIMIT) -> Cut:
    """Cuts by weight: into `count` shards, or into as many as hold some `shard_bytes` each, and into more where one
    would be longer than `text_limit`. The same plan gives the same shards.

    Images that share big blobs stay together as far as that leaves the shards even, so that a blob is seldom moved
    twice; an image that is also part of an index stays with it.
    """
    sizes = _Sizes(plan)
    images = [
        image for image in plan.to_transfer if not image.is_bundle and sizes.length(sizes.parts([image])) <= text_limit
    ]
    total = sizes.weight(sizes.parts(images))
    number = count or -(-total // max(1, shard_bytes))
    groups = _groups(sizes, images, limit=total / max(1, number))
    shares = _dealt(groups, min(number, len(groups)))
    short = [part for share in shares for part in _short_enough(sizes, share, text_limit)]
    sent = {image.digest for image in images}
    return Cut(
        shards=tuple(part_of(plan, share) for share in short),
        keep=part_of(plan, (image for image in plan.to_transfer if image.digest not in sent)),
    )


def local_stores(plan: Plan) -> list[str]:
    """Returns the stores of a plan that other machines can't reach: a plan that has any isn't worth cutting."""
    sources = {store for blob in plan.blobs for store in blob.stores}
    stores = {plan.destination, *(manifest.store for manifest in plan.manifests), *sources}
    return sorted(str(store) for store in stores if store.is_local)


def part_of(plan: Plan, images: Iterable[PlannedManifest]) -> Plan:
    """Returns a plan to transfer `images`, with what is below them and nothing else: no names, which the whole gets
    last."""
    chosen = {image.digest for image in images}
    below = {manifest.digest for digest in chosen for manifest in plan.below(plan.by_digest[digest])}
    blobs = {blob for digest in below for blob in _missing_blobs(plan.by_digest[digest])}
    return replace(
        plan,
        manifests=tuple(
            _bare(manifest, unit=manifest.digest in chosen) for manifest in plan.manifests if manifest.digest in below
        ),
        blobs=tuple(blob for blob in plan.blobs if blob.digest in blobs),
        bundles=(),
        failures=(),
        skipped_layers=(),
    )


def with_present_marked(session: Session, plan: Plan) -> Plan:
    """The plan with the images that the destination has by now marked as present: a request for each image. A bundle's
    own manifest is pushed last, and is not asked for."""
    destination = session.destination(plan.destination)

    def is_present(image: PlannedManifest) -> bool:
        return destination.head_manifest(image.digest) is not None

    images = [image for image in plan.to_transfer if not image.is_bundle]
    answers = session.workers.map(is_present, images)
    present = {image.digest for image, answer in zip(images, answers, strict=True) if answer}
    return replace(
        plan,
        manifests=tuple(
            replace(manifest, present=manifest.present or manifest.digest in present) for manifest in plan.manifests
        ),
        fresh=False,
    )


class _Group(Struct):
    """Images that stay together, with the manifests and blobs below them, each counted once."""

    images: list[PlannedManifest]
    parts: set[Digest]
    weight: int


class _Sizes:
    """What manifests and blobs weigh, and how long they are as JSON."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._weights = {blob.digest: blob.size + 3 * _REQUEST for blob in plan.blobs}
        self._weights.update({part.digest: 0 if part.present else 2 * _REQUEST for part in plan.manifests})
        self._lengths = {blob.digest: _length(blob) for blob in plan.blobs}
        self._lengths.update({part.digest: _length(_bare(part, unit=True)) for part in plan.manifests})

    def parts(self, images: Iterable[PlannedManifest]) -> set[Digest]:
        """Returns the digests of everything below."""
        below = [manifest for image in images for manifest in self.plan.below(image)]
        return {manifest.digest for manifest in below}.union(*map(_missing_blobs, below))

    def group(self, image: PlannedManifest) -> _Group:
        parts = self.parts([image])
        return _Group([image], parts, self.weight(parts))

    def weight(self, parts: Iterable[Digest]) -> int:
        return sum(self._weights[part] for part in parts)

    def length(self, parts: Iterable[Digest]) -> int:
        return sum(self._lengths[part] for part in parts)


def _groups(sizes: _Sizes, images: Sequence[PlannedManifest], limit: float) -> list[_Group]:
    """Images with a blob in common that is worth it, in even pieces of some `limit` where they are too many for one; an
    index always with those of its children that are images of their own."""
    group_of = {image.digest: sizes.group(image) for image in images}

    def join(group: _Group, other: _Group, *, at_most: float) -> None:
        if group is other:
            return
        big, small = (group, other) if len(group.parts) >= len(other.parts) else (other, group)
        together = big.weight + sizes.weight(small.parts - big.parts)
        if together > at_most:
            return
        big.images += small.images
        big.parts |= small.parts
        big.weight = together
        group_of.update({image.digest: big for image in small.images})

    for image in images:
        for child in sizes.plan.below(image):
            if child.digest in group_of:
                join(group_of[image.digest], group_of[child.digest], at_most=float("inf"))
    holders: dict[Digest, list[Digest]] = defaultdict(list)
    for image in images:
        for part in sizes.parts([image]):
            holders[part].append(image.digest)
    for blob in sizes.plan.blobs:
        if blob.size <= SMALL:
            break
        images_with = holders[blob.digest]
        family = {id(group): group.parts for group in (group_of[digest] for digest in images_with)}
        common = sizes.weight([blob.digest])
        own = sizes.weight(set().union(*family.values())) - common
        pieces = max(1, round(own / (limit - common))) if limit > common else 1
        for first, second in pairwise(images_with):
            join(group_of[first], group_of[second], at_most=common + own / pieces)
    return list({id(group): group for group in group_of.values()}.values())


def _dealt(groups: Sequence[_Group], count: int) -> list[list[PlannedManifest]]:
    """Returns the groups in `count` even shares: the heaviest first, each to the share that has least so far."""
    shares: list[list[PlannedManifest]] = [[] for _ in range(count)]
    loads = [(0, number) for number in range(count)]
    for group in sorted(groups, key=lambda group: (-group.weight, group.images[0].digest)):
        load, number = heapq.heappop(loads)
        shares[number] += group.images
        heapq.heappush(loads, (load + group.weight, number))
    return shares


def _short_enough(sizes: _Sizes, images: list[PlannedManifest], limit: int) -> Iterator[list[PlannedManifest]]:
    if len(images) < 2 or sizes.length(sizes.parts(images)) <= limit:
        yield images
        return
    middle = len(images) // 2
    yield from _short_enough(sizes, images[:middle], limit)
    yield from _short_enough(sizes, images[middle:], limit)


def _missing_blobs(manifest: PlannedManifest) -> tuple[Digest, ...]:
    return () if manifest.present else manifest.blobs


def _bare(manifest: PlannedManifest, *, unit: bool) -> PlannedManifest:
    return replace(manifest, role=manifest.role if unit else Role.CHILD, tags=(), annotations={})


def _length(part: PlannedManifest | PlannedBlob) -> int:
    return len(json.dumps(to_dict(part)))
