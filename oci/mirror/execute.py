"""Carrying out the work of a mirror: an image to every destination that lacks it, each by a relocation of its own, with
each blob read once for all of them; and what that would cost, without writing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from oci.archive.options import ExportOptions
from oci.digest import Digest
from oci.errors import Incomplete, StoreError, TransshipError
from oci.export.export import write_archive
from oci.export.plan import ArchivePlan
from oci.export.planner import plan_archive
from oci.meter import PartThreads, unheard
from oci.mirror.comparison import Comparison, TagState, Target, WorkItem
from oci.mirror.head_cache import held_in
from oci.mirror.run_state import Breaker
from oci.reference import ArchiveName, StoreName
from oci.relocation.driver import Relocation
from oci.relocation.fanout import as_done
from oci.relocation.plan import Plan, PlannedManifest, Role
from oci.relocation.planner import make_plan
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED, ImageOutcome, share_reads

SKIPPED = "not tried"


class ItemOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one item at one destination. `tags` were moved there and show `digest`; sizes in bytes."""

    source: str
    """The `source` of the item: together with `destination` it names one planned target."""
    names: tuple[str, ...]
    destination: StoreName
    status: str
    """DONE, FAILED, or SKIPPED: not even begun, because a registry is of no use."""
    tags: tuple[str, ...] = ()
    digest: str = ""
    images: int = 0
    bytes_written: int = 0
    bytes_mounted: int = 0
    bytes_skipped: int = 0
    seconds: float = 0.0
    error: str = ""
    error_class: str = ""
    retryable: bool = False


def execute_item(
    session: Session, item: WorkItem, breaker: Breaker, *, listed: frozenset[str] | None = None
) -> tuple[ItemOutcome, ...]:
    """One outcome for each target; a failure at one doesn't touch the others. Raises Cancelled and nothing else."""
    outcomes: dict[StoreName, ItemOutcome] = {}
    plans: dict[StoreName, Plan] = {}
    for target in item.targets:
        single, started = item.alone(target), time.monotonic()
        cause = breaker.cause(single.places)
        if cause is not None:
            outcomes[target.destination] = outcome_of(item, target, SKIPPED, error=cause)
        elif isinstance(target.destination, ArchiveName):
            outcomes[target.destination] = _archive(session, single, breaker)
        else:
            try:
                snapshot = item.snapshot(target, listed)
                plans[target.destination] = make_plan(session, item.request(target), snapshot=snapshot)
            except TransshipError as error:
                breaker.failed(error)
                outcomes[target.destination] = outcome_of(item, target, FAILED, error=error, started=started)
    planned = [target for target in item.targets if target.destination in plans]

    def bring(target: Target) -> ItemOutcome:
        return _bring(session, item, target, plans[target.destination], breaker)

    if len(planned) > 1:
        share_reads(session, list(plans.values()))
        with PartThreads(len(planned), thread_name_prefix="target") as threads:
            brought = list(threads.map(bring, planned))
    else:
        brought = [bring(target) for target in planned]
    outcomes.update({carried.destination: carried for carried in brought})
    return tuple(outcomes[target.destination] for target in item.targets)


def execute(
    session: Session,
    items: Sequence[WorkItem],
    breaker: Breaker,
    *,
    listed: frozenset[str] | None = None,
    width: int = 0,
    stop_at_failure: bool = False,
    on_done: Callable[[WorkItem, tuple[ItemOutcome, ...]], None] = unheard,
) -> tuple[ItemOutcome, ...]:
    """All of them, `width` at a time, or as many as the session has threads. With `stop_at_failure` none is begun after
    one that failed. Raises Cancelled and nothing else."""
    outcomes: list[ItemOutcome] = []
    queue = iter(items)
    width = width or session.concurrency

    def unstopped() -> Iterator[WorkItem]:
        for item in queue:
            yield item
            if stop_at_failure and any(outcome.status == FAILED for outcome in outcomes):
                return

    with PartThreads(width, thread_name_prefix="item") as threads:
        begin = partial(threads.submit, breaker.busy, execute_item, session, breaker=breaker, listed=listed)
        for item, future in as_done(unstopped(), width, begin):
            carried = future.result()
            outcomes.extend(carried)
            on_done(item, carried)
    outcomes.extend(outcome for item in queue for outcome in stopped_before(item))
    return tuple(outcomes)


def unaccounted(items: Iterable[WorkItem], outcomes: Iterable[ItemOutcome]) -> list[tuple[WorkItem, Target]]:
    """The planned targets that no outcome speaks of, or whose outcome is DONE without all of the target's tags."""
    moved = {
        (outcome.source, outcome.destination): frozenset(outcome.tags) if outcome.status == DONE else None
        for outcome in outcomes
    }
    missing = []
    for item in items:
        for target in item.targets:
            tags = moved.get((item.source, target.destination), frozenset())
            reported = (item.source, target.destination) in moved
            if not reported or (tags is not None and not target.shown and not tags.issuperset(target.tags)):
                missing.append((item, target))
    return missing


def outcome_of(
    item: WorkItem,
    target: Target,
    status: str,
    *,
    parts: Sequence[ImageOutcome] = (),
    error: TransshipError | None = None,
    started: float | None = None,
    **more: Any,
) -> ItemOutcome:
    """`parts` are the outcomes of its images, `error` is why it isn't done, `started` when it was begun, by the
    monotonic clock."""
    if error is not None:
        error_class = next((image.error_class for image in parts if image.error_class), type(error).__name__)
        more |= {"error": str(error), "error_class": error_class, "retryable": error.retryable}
    sizes = ("bytes_written", "bytes_mounted", "bytes_skipped")
    totals = {
        "images": sum(image.status == DONE for image in parts),
        **{name: sum(getattr(image, name) for image in parts) for name in sizes},
    }
    return ItemOutcome(
        source=item.source,
        names=item.names,
        destination=target.destination,
        status=status,
        seconds=0.0 if started is None else round(time.monotonic() - started, 3),
        **(totals | more),
    )


def stopped_before(item: WorkItem) -> tuple[ItemOutcome, ...]:
    """The outcomes of an item that isn't begun, because an image before it failed."""
    cause = TransshipError("another image of this mirror failed, and on_failure is stop")
    return tuple(outcome_of(item, target, SKIPPED, error=cause) for target in item.targets)


def _archive(session: Session, item: WorkItem, breaker: Breaker) -> ItemOutcome:
    started = time.monotonic()
    [target] = item.targets
    try:
        plan, archive = plan_written(session, item)
        sent = write_archive(session, archive).sent  # whatever is raised, the old archive stays
    except TransshipError as error:
        breaker.failed(error)
        return outcome_of(item, target, FAILED, error=_cause(error), started=started)
    breaker.succeeded(item.places)
    count = len(list(plan.images))
    return outcome_of(item, target, DONE, started=started, tags=target.tags, images=count, bytes_written=sent)


def _bring(session: Session, item: WorkItem, target: Target, plan: Plan, breaker: Breaker) -> ItemOutcome:
    started = time.monotonic()
    relocation = Relocation(session, item.request(target), plan=plan)

    def note(image: ImageOutcome) -> None:
        breaker.noted(image.error_class, image.side, image.store, StoreError(image.error))

    try:
        result = relocation.run(on_image=note)
    except TransshipError as error:
        breaker.failed(error)
        parts = relocation.result().outcomes
        return outcome_of(item, target, FAILED, parts=parts, error=_cause(error), started=started)
    breaker.succeeded(item.alone(target).places)
    tags, digest = result.published.tags, str(plan.root or "")
    return outcome_of(item, target, DONE, parts=result.outcomes, started=started, tags=tags, digest=digest)


def _cause(error: TransshipError) -> TransshipError:
    """A relocation of one image that failed says no more than its one failure, one of several the first of them."""
    if not isinstance(error, Incomplete) or not error.failures:
        return error
    if len(error.failures) == 1:
        return error.failures[0]
    message = f"{error.message}; the first: {error.failures[0]}"
    return Incomplete(message, error.failures, some_done=error.some_done, hint=error.hint)


class PlannedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One image for one destination. Bytes that an image before it brings already aren't counted again."""

    title: str
    names: tuple[str, ...]
    destination: str
    tags: tuple[str, ...]
    images: int = 0
    bytes_to_move: int = 0
    bytes_to_mount: int = 0
    error: str = ""


class MirrorPlan(msgspec.Struct, frozen=True, kw_only=True):
    mirror: str
    source: str
    items: tuple[PlannedItem, ...] = ()
    in_place: int = 0
    mutated: tuple[str, ...] = ()
    unsigned: tuple[str, ...] = ()
    refusals: dict[str, str] = {}
    """Why the policy of signatures refuses the tags in `unsigned`."""
    held: Mapping[str, str] = {}
    waiting: int = 0
    nothing_taken: str = ""
    requests: Mapping[str, int] = {}
    """By registry, for carrying it out; what comparing takes is spent already."""

    @property
    def bytes_to_move(self) -> int:
        return sum(item.bytes_to_move for item in self.items)

    @property
    def bytes_to_mount(self) -> int:
        return sum(item.bytes_to_mount for item in self.items)

    def to_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = msgspec.to_builtins(self)
        for item in body["items"]:
            del item["title"]
        return body | {"bytes_to_move": self.bytes_to_move, "bytes_to_mount": self.bytes_to_mount}


def plan_mirror(session: Session, comparison: Comparison) -> MirrorPlan:
    """Plans every item of the comparison's work. An item that can't be planned says so, and the others go on."""
    brought: set[tuple[StoreName, Digest]] = set()
    requests: Counter[str] = Counter()

    def planned(item: WorkItem, target: Target) -> PlannedItem:
        session.cancel.check()
        result = PlannedItem(title=item.title, names=item.names, destination=str(target.destination), tags=target.tags)
        try:
            single = item.alone(target)
            if single.writes_archive:  # whole, but for what comes out of the old one
                plan, archive = plan_written(session, single)
                moved = archive.size - archive.bytes_copied
                return msgspec.structs.replace(result, images=len(list(plan.images)), bytes_to_move=moved)
            plan = make_plan(session, item.request(target), snapshot=item.snapshot(target, comparison.listed))
        except TransshipError as error:
            return msgspec.structs.replace(result, error=str(error))
        requests.update(plan.estimated_requests)
        new = [blob for blob in plan.blobs if (target.destination, blob.digest) not in brought]
        brought.update((target.destination, blob.digest) for blob in new)
        return msgspec.structs.replace(
            result,
            images=len(plan.to_transfer),
            bytes_to_move=sum(blob.size for blob in new if not plan.mountable(blob)),
            bytes_to_mount=sum(blob.size for blob in new if plan.mountable(blob)),
            error="; ".join(failure.message for failure in plan.failures),
        )

    items = tuple(planned(item, target) for item in comparison.work for target in item.targets)
    return MirrorPlan(
        mirror=comparison.mirror,
        source=comparison.source,
        items=items,
        in_place=comparison.count(TagState.IN_PLACE),
        mutated=comparison.named(TagState.MUTATED),
        unsigned=comparison.named(TagState.UNSIGNED),
        refusals=comparison.refusals,
        held=comparison.too_young,
        waiting=comparison.waiting,
        nothing_taken=comparison.nothing_taken,
        requests=dict(sorted(requests.items())),
    )


def plan_written(session: Session, item: WorkItem) -> tuple[Plan, ArchivePlan]:
    """One archive of all that the item names; manifests and configs are read, nothing is written. Raises Incomplete
    when a part of the source can't be read."""
    [target] = item.targets
    requests = item.requests(target)
    plans = [make_plan(session, request) for request in requests]
    plan = plans[0] if len(plans) == 1 else _merged(item.source, target.destination, plans)
    name = target.destination
    old = name.locations[0] if isinstance(name, ArchiveName) and held_in(session, name).readers else ""
    return plan, plan_archive(session, requests[0], plan, ExportOptions(base=old))


def _merged(source: str, destination: StoreName, plans: Sequence[Plan]) -> Plan:
    """One plan of several: each manifest and blob once, an image under all of its tags."""
    manifests: dict[Digest, PlannedManifest] = {}
    for manifest in (manifest for plan in plans for manifest in plan.manifests):
        earlier = manifests.get(manifest.digest, manifest)
        # The reason that makes it an image of its own counts more than being a child of an index.
        child_first = earlier.role is Role.CHILD or manifest.role is Role.ROOT
        first, second = (manifest, earlier) if child_first else (earlier, manifest)
        tags = tuple(dict.fromkeys((*first.tags, *second.tags)))
        manifests[manifest.digest] = msgspec.structs.replace(first, tags=tags)
    blobs = {blob.digest: blob for plan in plans for blob in plan.blobs}
    return Plan(
        source=source,
        destination=destination,
        root=None,
        manifests=tuple(manifests.values()),
        blobs=tuple(sorted(blobs.values(), key=lambda blob: (-blob.size, blob.digest))),
        bundles=tuple({bundle.digest: bundle for plan in plans for bundle in plan.bundles}.values()),
        failures=tuple(failure for plan in plans for failure in plan.failures),
        skipped_layers=tuple(dict.fromkeys(pair for plan in plans for pair in plan.skipped_layers)),
    )
