"""The images of a relocation and the items of a mirror, shared with helpers: what a shard is as text, and what a
helper says of it."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace
from prefect.logging import get_run_logger

from oci.descriptor import parse_json
from oci.digest import Digest, parse_digest, verified
from oci.errors import InvalidDocument, StoreError, TransshipError, Unavailable
from oci.mirror.comparison import WorkItem
from oci.mirror.execute import ItemOutcome, outcome_of
from oci.output import to_dict
from oci.reference import StoreName, read_store
from oci.relocation.fanout import SMALL
from oci.relocation.plan import Plan, PlannedManifest
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.shards import (
    Preview,
    Weights,
    cut,
    has_limits,
    joined,
    limited_stores,
    part_of,
    stores_of,
    weight_of,
    with_present_marked,
)
from oci.relocation.transfer import DONE, FAILED, ImageOutcome, failure
from oci.units import show_size
from tasks.fleet.limits import limits_of
from tasks.fleet.queue import ShardQueue, ShardResult
from tasks.fleet.spread import Work
from tasks.mirror import MirrorRun
from tasks.relocate import RelocationRun
from tasks.run import given_access, together_in_a_task

_LONGEST = 64 << 20
"""Bytes of a plan that a helper unpacks, at the most."""

_SMALL = 16 << 10
"""Bytes of a blob that travels with a shard, at the most: a config that planning has read."""
_SMALL_IN_ALL = 2 << 20
"""Bytes of all such blobs of a shard, at the most."""

FOR_ALL = "is allowed in a second is for all runs together"

_MOST_ITEMS = 200
"""Items of a mirror in a shard."""


def pack_images(session: Session, plan: Plan) -> str:
    """Returns a plan as short text, with small blobs of it that planning has read, so that no other run reads them
    again."""
    blobs: dict[str, str] = {}
    total = 0
    for blob in reversed(plan.blobs):  # the small ones are last
        data = session.cache.get(blob.digest) if blob.size <= _SMALL else None
        total += len(data or b"")
        if total > _SMALL_IN_ALL:
            break
        if data:
            blobs[blob.digest] = base64.b64encode(data).decode()
    whole = replace(plan, manifests=tuple(_with_text(session, manifest) for manifest in plan.manifests))
    body = json.dumps({"plan": whole.to_dict(), "blobs": blobs}, separators=(",", ":"))
    return base64.b64encode(zlib.compress(body.encode(), 6)).decode()


def unpack_images(text: str) -> tuple[Plan, dict[Digest, bytes]]:
    """Returns what `pack_images` has put into a text; blobs are judged by their digests. Raises InvalidDocument."""
    try:
        inflate = zlib.decompressobj()
        body = inflate.decompress(base64.b64decode(text, validate=True), _LONGEST)
        if inflate.unconsumed_tail:
            raise InvalidDocument(f"a shard is longer than {_LONGEST} bytes")
        read = parse_json(body)
        blobs: dict[Digest, bytes] = {}
        for name, encoded in read["blobs"].items():
            digest, data = parse_digest(name), base64.b64decode(encoded, validate=True)
            blobs[digest] = b"".join(verified(iter([data]), digest, len(data)))
        return Plan.from_dict(read["plan"]), blobs
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError, TransshipError) as error:
        raise InvalidDocument(f"not a shard of a relocation: {error}") from error


def _with_text(session: Session, manifest: PlannedManifest) -> PlannedManifest:
    raw = None if manifest.raw or manifest.present else session.cache.get(manifest.digest)
    try:
        return replace(manifest, raw=raw.decode()) if raw else manifest
    except UnicodeDecodeError:
        return manifest


def images_result(run: RelocationRun, images: Sequence[Digest]) -> str:
    """Returns what has become of some images, and what the run has cost so far."""
    outcomes = run.relocation.outcomes
    return ShardResult([outcomes[digest] for digest in images if digest in outcomes], run.receipt()).to_json()


async def open_shard(run: RelocationRun, text: str, *, ask: bool) -> list[Digest]:
    """Adds a shard to the run of a helper, and returns its images, biggest first. With `ask`, the destination is asked
    which of them it has by now."""
    session = await run.session()
    shard, blobs = unpack_images(text)
    for digest, data in blobs.items():
        session.cache.put(digest, data)
    if ask:
        shard = await run.in_thread(with_present_marked, session, shard)
    before = run.relocation.made_plan
    if before is None:
        await run.limit(limits_of(shard.destination, *{image.store for image in shard.to_transfer}))
    run.relocation.made_plan = shard if before is None else joined(before, shard)
    get_run_logger().info("%d images to copy: %s", len(shard.to_transfer), show_size(shard.bytes_to_move))
    for image in shard.images:
        if image.present:
            run.relocation.outcomes[image.digest] = ImageOutcome.of(image, DONE)
    return [image.digest for image in shard.to_transfer]


def can_begin(request: RelocationRequest, session: Session) -> bool:
    """Says whether helpers may begin while the plan of a relocation is made."""
    return Preview.is_possible(request) and given_access() is None and not has_limits(session)


def images_stay_here(plan: Plan, session: Session, *, always: bool) -> str:
    """Returns why other machines can't do a part of a plan, or make nothing faster, or nothing. With `always`, helpers
    come also where that makes nothing faster."""
    has_own = given_access() is not None
    reason = stays_here(stores_of(plan), session, always=always or has_own)
    return reason or ("done by this run alone: the credentials are this machine's own" if has_own else "")


def stays_here(stores: Iterable[tuple[str, StoreName]], session: Session, *, always: bool) -> str:
    """Returns why other machines can't work with stores, or make nothing faster, or nothing. The stores come with their
    sides. Where a person has set what one may be asked or sent in a second, several runs would each get a part of that;
    with `always` they do."""
    stores = list(stores)
    folders = sorted(str(store) for _, store in stores if store.is_local)
    if folders:
        return f"done by this run alone: {folders[0]} is on this machine"
    limited = [] if always else limited_stores(session, stores)
    return f"done by this run alone: what {limited[0] or 'a store'} {FOR_ALL}" if limited else ""


class RelocationWork(Work[Digest]):
    """The images of a relocation as units: digests."""

    def __init__(
        self,
        run: RelocationRun,
        session: Session,
        parameters: Callable[[int, ShardQueue], Mapping[str, Any]],
        *,
        trusting: bool = True,
    ) -> None:
        """`parameters` makes those of a helper from the images of a task run and the queue. Without `trusting`, an
        image that was there before counts for nothing."""
        self._run = run
        self._session = session
        self._parameters = parameters
        self._trusting = trusting
        self._partial: Plan | None = None
        self._share_found = 1.0
        self._weights: Weights | None = None
        self._moving: tuple[float, Mapping[Digest, int]] = (0.0, {})
        """When `busy` was last called, and what was on its way then."""
        self._early_blobs: set[Digest] = set()
        """Big blobs of the images that helpers could have before all was planned."""
        self._early_images: set[Digest] = set()
        """Those images."""

    @property
    def _plan(self) -> Plan:
        """What is planned so far."""
        plan = self._run.relocation.made_plan or self._partial
        if plan is None:
            raise RuntimeError("no image was found yet")
        return plan

    def find(self, part: Plan, share: float) -> list[Digest]:
        """Takes in what planning has found, `share` of all with what it found before. Returns the images that helpers
        can have at once: those that share a big blob with earlier ones are cut when all is known, so that the blob
        isn't sent once for each helper."""
        self._partial = part if self._partial is None else joined(self._partial, part)
        self._share_found = share
        images = [image for image in part.to_transfer if self._early_blobs.isdisjoint(_big_blobs(part, [image]))]
        self._early_blobs.update(_big_blobs(part, images))
        self._early_images.update(image.digest for image in images)
        return [image.digest for image in images]

    @property
    def images_together(self) -> int:
        """Images of a task run, as far as the number of images is known."""
        share = 1.0 if self._run.relocation.made_plan else self._share_found
        return together_in_a_task(len(self._plan.to_transfer) / share)

    def progress(self) -> float:
        return float(weight_of(self._run.meter.receipt()))

    def weight(self, units: Sequence[Digest]) -> float:
        if not units:
            return 0.0
        if self._weights is None or self._weights.plan is not self._plan:
            self._weights = Weights(self._plan)
        return float(self._weights.of_images(units, moved=self._session.moved.copy()))

    def busy(self) -> float:
        now, moving = time.monotonic(), self._session.moving.copy()
        (then, before), self._moving = self._moving, (now, moving)
        return self._weights.seconds_left(moving, before, now - then) if self._weights else 0.0

    def cut(self, units: Sequence[Digest], *, workers: int, least: float) -> list[list[Digest]]:
        plan = self._plan
        return cut(plan, [plan.by_digest[digest] for digest in units], workers=workers, least=least)

    def pack(self, units: Sequence[Digest], *, again: bool) -> str:
        plan = self._plan
        images = [plan.by_digest[digest] for digest in units]
        is_early = self._early_images.issuperset(units)
        is_asked = again or (not is_early and not self._early_blobs.isdisjoint(_big_blobs(plan, images)))
        shard = part_of(plan, images)
        return pack_images(self._session, replace(shard, fresh=shard.fresh and not is_asked))

    def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
        return self._parameters(self.images_together, queue)

    def note(self, helper: str, text: str) -> None:
        reported = msgspec.json.decode(text, type=ShardResult[ImageOutcome])
        reported.note(self._run.relocation.outcomes, lambda outcome: outcome.digest, self._run.elsewhere, helper)

    async def remaining(self, units: Sequence[Digest]) -> list[Digest]:
        if not self._trusting:
            return list(units)
        plan = self._plan
        shard = part_of(plan, [plan.by_digest[digest] for digest in units])
        marked = await self._run.in_thread(with_present_marked, self._session, shard)
        missing = {image.digest for image in marked.to_transfer}
        for image in shard.to_transfer:
            if image.digest not in missing:  # in place, although its helper sent no last word
                self._run.relocation.outcomes.setdefault(image.digest, ImageOutcome.of(image, DONE))
        get_run_logger().warning("a helper was lost: %d of %d images are left of its shard", len(missing), len(units))
        return [digest for digest in units if digest in missing]

    def fail(self, units: Sequence[Digest], reason: str) -> None:
        plan = self._plan
        for digest in units:
            error = StoreError(
                f"was not copied: {reason}",
                side="destination",
                store=str(plan.destination),
                subject=digest,
                retryable=True,
            )
            self._run.relocation.outcomes[digest] = failure(plan.by_digest[digest], error)


def _big_blobs(plan: Plan, images: Iterable[PlannedManifest]) -> set[Digest]:
    blobs = {blob for image in images for manifest in plan.below(image) for blob in manifest.blobs}
    return {digest for digest in blobs if plan.blob_by_digest[digest].size > SMALL}


class MirrorWork(Work[WorkItem]):
    """The items of a mirror as units, of a weight of 1 for each destination: what they weigh
    is known when they are looked at. Each gives its image its tags by itself, so nothing is left for the run that is
    helped but the report."""

    def __init__(self, run: MirrorRun, parameters: Callable[[ShardQueue], Mapping[str, Any]]) -> None:
        self._run = run
        self._parameters = parameters

    def progress(self) -> float:
        return float(len(self._run.outcomes))

    def weight(self, units: Sequence[WorkItem]) -> float:
        return float(sum(len(item.targets) for item in units))

    def cut(self, units: Sequence[WorkItem], *, workers: int, least: float) -> list[list[WorkItem]]:
        """Neighbours stay together: tags of one repository have layers in common."""
        waiting, shards = list(units), []
        while waiting:
            count = max(1, round(least), len(waiting) // (2 * workers))
            shards.append(waiting[: min(count, _MOST_ITEMS)])
            waiting = waiting[len(shards[-1]) :]
        return shards

    def pack(self, units: Sequence[WorkItem], *, again: bool) -> str:
        del again  # each item is compared once more where it is carried
        return msgspec.json.encode(list(map(to_dict, units))).decode()

    def parameters(self, queue: ShardQueue) -> Mapping[str, Any]:
        return self._parameters(queue)

    def note(self, helper: str, text: str) -> None:
        reported = msgspec.json.decode(text, type=ShardResult[ItemOutcome], dec_hook=read_store)
        run = self._run
        reported.note(run.outcomes, lambda outcome: (outcome.source, outcome.destination), run.elsewhere, helper)

    async def remaining(self, units: Sequence[WorkItem]) -> list[WorkItem]:
        """Leaves out nothing but what is known to be done: an item that is done costs a few requests."""
        return [item for item in map(self._run.undelivered, units) if item.targets]

    def fail(self, units: Sequence[WorkItem], reason: str) -> None:
        for item in units:
            error = Unavailable(f"was not copied: {reason}")
            self._run.record(item, tuple(outcome_of(item, target, FAILED, error=error) for target in item.targets))


def unpack_items(text: str) -> list[WorkItem]:
    """Returns the items of a shard. Raises InvalidDocument."""
    try:
        return [WorkItem.from_dict(item) for item in msgspec.json.decode(text, type=list[dict[str, Any]])]
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidDocument(f"not a shard of a mirror: {error}") from error


def items_result(run: MirrorRun, items: Sequence[WorkItem]) -> str:
    """Returns what has become of some items, and what the run has cost so far."""
    sources = {item.source for item in items}
    outcomes = [outcome for (source, _), outcome in run.outcomes.items() if source in sources]
    return ShardResult(outcomes, run.receipt()).to_json()
