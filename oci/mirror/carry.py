"""Carrying out an item of work: an image to every destination that lacks it, each by a relocation of its own, with each
blob read once for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

from oci.errors import Incomplete, StoreError, TransshipError
from oci.mirror import archives
from oci.mirror.breaker import Breaker
from oci.mirror.work import Target, WorkItem
from oci.reference import ARCHIVE_PREFIX
from oci.relocation.plan import Plan
from oci.relocation.planner import make_plan
from oci.relocation.publish import check_complete, publish
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED, ImageOutcome, share_reads, transfer_all

SKIPPED = "not tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What became of one item at one destination. `tags` were moved there; sizes in bytes."""

    source: str
    """The `source` of the item: together with `destination` it names one planned target."""
    names: tuple[str, ...]
    destination: str
    status: str
    """DONE, FAILED, or SKIPPED: not even begun, because a registry is of no use."""
    tags: tuple[str, ...] = ()
    images: int = 0
    bytes_written: int = 0
    bytes_mounted: int = 0
    bytes_skipped: int = 0
    seconds: float = 0.0
    error: str = ""
    error_class: str = ""
    retryable: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def carry(
    session: Session, item: WorkItem, breaker: Breaker, *, listed: frozenset[str] | None = None
) -> tuple[Carried, ...]:
    """One outcome for each target; a failure at one doesn't touch the others. Raises Cancelled and nothing else."""
    outcomes: dict[str, Carried] = {}
    plans: dict[str, Plan] = {}
    for target in item.targets:
        one = item.alone(target)
        cause = breaker.cause(one.places)
        if cause is not None:
            outcomes[target.destination] = _skipped(item, target, cause)
            continue
        started = time.monotonic()
        if target.destination.startswith(ARCHIVE_PREFIX):
            outcomes[target.destination] = _archive(session, one, breaker)
            continue
        try:
            plans[target.destination] = make_plan(session, item.request(target), seen=item.seen(target, listed))
        except TransshipError as error:
            breaker.failed(error)
            outcomes[target.destination] = _failed(item, target, error, started)
    planned = [target for target in item.targets if target.destination in plans]

    def bring(target: Target) -> Carried:
        return _bring(session, item, target, plans[target.destination], breaker)

    if len(planned) > 1:
        share_reads(session, list(plans.values()))
        with ThreadPoolExecutor(len(planned), thread_name_prefix="target") as threads:
            done = list(threads.map(bring, planned))
    else:
        done = [bring(target) for target in planned]
    outcomes.update({carried.destination: carried for carried in done})
    return tuple(outcomes[target.destination] for target in item.targets)


def carry_all(
    session: Session,
    items: Sequence[WorkItem],
    breaker: Breaker,
    *,
    listed: frozenset[str] | None = None,
    stop_at_failure: bool = False,
    on_done: Callable[[WorkItem, tuple[Carried, ...]], None] | None = None,
) -> tuple[Carried, ...]:
    """All of them, some at a time. With `stop_at_failure` none is begun after one that failed. Raises Cancelled and
    nothing else."""
    outcomes: list[Carried] = []
    queue = iter(items)
    running: dict[Future[tuple[Carried, ...]], WorkItem] = {}
    with ThreadPoolExecutor(session.concurrency, thread_name_prefix="item") as threads:
        while True:
            stopped = stop_at_failure and any(one.status == FAILED for one in outcomes)
            for item in () if stopped else islice(queue, session.concurrency - len(running)):
                running[threads.submit(carry, session, item, breaker, listed=listed)] = item
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                item, carried = running.pop(future), future.result()
                outcomes.extend(carried)
                if on_done is not None:
                    on_done(item, carried)
    outcomes.extend(one for item in queue for one in left_by_policy(item))
    return tuple(outcomes)


def left_undone(items: Iterable[WorkItem], outcomes: Iterable[Carried], cause: TransshipError) -> tuple[Carried, ...]:
    """Of the items that have no outcome, when a run ends early."""
    return tuple(_skipped(item, target, cause) for item, target in unaccounted(items, outcomes))


def unaccounted(items: Iterable[WorkItem], outcomes: Iterable[Carried]) -> list[tuple[WorkItem, Target]]:
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
            if not reported or (tags is not None and not tags.issuperset(target.tags)):
                missing.append((item, target))
    return missing


def failed_by(item: WorkItem, target: Target, error: TransshipError) -> Carried:
    """The outcome of a target that an error outside of the relocation ended."""
    return _failed(item, target, error, time.monotonic())


def _archive(session: Session, item: WorkItem, breaker: Breaker) -> Carried:
    started = time.monotonic()
    [target] = item.targets
    try:
        plan, report = archives.write(session, item)
    except TransshipError as error:
        breaker.failed(error)
        return _failed(item, target, _the_one(error), started)
    breaker.succeeded(item.places)
    done = _carried(item, target, DONE, (), started=started, tags=target.tags)
    return replace(done, images=len(list(plan.images)), bytes_written=report.sent)


def _bring(session: Session, item: WorkItem, target: Target, plan: Plan, breaker: Breaker) -> Carried:
    started = time.monotonic()
    images: tuple[ImageOutcome, ...] = ()
    try:
        images = transfer_all(session, plan)
        for image in images:
            breaker.noted(image.error_class, image.side, image.store, StoreError(image.error))
        check_complete(plan, images)
        published = publish(session, plan, images)
    except TransshipError as error:
        breaker.failed(error)
        return _failed(item, target, _the_one(error), started, images)
    breaker.succeeded(item.alone(target).places)
    return _carried(item, target, DONE, images, started=started, tags=published.tags)


def _the_one(error: TransshipError) -> TransshipError:
    """A relocation of one image that failed says no more than its one failure."""
    if isinstance(error, Incomplete) and len(error.failures) == 1:
        return error.failures[0]
    return error


def _carried(
    item: WorkItem, target: Target, status: str, images: Iterable[ImageOutcome], *, started: float, **more: Any
) -> Carried:
    kept = list(images)
    total = partial(_total, kept)
    return Carried(
        source=item.source,
        names=item.names,
        destination=target.destination,
        status=status,
        images=sum(image.status == DONE for image in kept),
        bytes_written=total("bytes_written"),
        bytes_mounted=total("bytes_mounted"),
        bytes_skipped=total("bytes_skipped"),
        seconds=round(time.monotonic() - started, 3),
        **more,
    )


def _total(images: Iterable[ImageOutcome], name: str) -> int:
    return sum(getattr(image, name) for image in images)


def _failed(
    item: WorkItem, target: Target, error: TransshipError, started: float, images: Iterable[ImageOutcome] = ()
) -> Carried:
    return _carried(
        item,
        target,
        FAILED,
        images,
        started=started,
        error=str(error),
        error_class=next((image.error_class for image in images if image.error_class), type(error).__name__),
        retryable=error.retryable,
    )


def left_by_policy(item: WorkItem) -> tuple[Carried, ...]:
    """The outcomes of an item that isn't begun, because an image before it failed."""
    cause = TransshipError("another image of this mirror failed, and on_failure is stop")
    return tuple(_skipped(item, target, cause) for target in item.targets)


def _skipped(item: WorkItem, target: Target, cause: TransshipError) -> Carried:
    return Carried(
        source=item.source,
        names=item.names,
        destination=target.destination,
        status=SKIPPED,
        error=str(cause),
        error_class=type(cause).__name__,
        retryable=cause.retryable,
    )
