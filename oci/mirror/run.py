"""A whole run: mirrors compared, what changed carried out, and a report of each."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from oci.cancel import CancelToken
from oci.errors import Cancelled, TransshipError
from oci.meter import Meter, PartThreads, Receipt
from oci.mirror.compare import compare
from oci.mirror.comparison import RUN, Care, Comparison, TagState
from oci.mirror.config import CONSENT, Mirror, MirrorsConfig, check_consent
from oci.mirror.digest_cache import DigestCache
from oci.mirror.execute import SKIPPED, ItemOutcome, execute, not_tried, unaccounted
from oci.mirror.policy import OnFailure
from oci.mirror.work import Breaker, WorkItem, place
from oci.reference import ARCHIVE_PREFIX
from oci.registry.credentials.chain import Credentials
from oci.registry.credentials.credential import ANONYMOUS, Credential
from oci.relocation.session import Access, Session
from oci.relocation.transfer import DONE
from oci.units import counted, show_size

SIDE_BY_SIDE = 16
"""Mirrors of a run that are compared and carried out at a time; the session bounds what they do together."""

Reach: TypeAlias = Callable[[str, int], Access]
"""How a driver reaches one side, "source" or "destination", with so many threads, where the configuration says nothing;
and who it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the mirrors of one run share."""

    facts: DigestCache
    breaker: Breaker
    care: Care = RUN
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Anonymous:
    """The identity at registries that the configuration wants to be asked without a login."""

    hosts: frozenset[str]

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        return ANONYMOUS if registry in self.hosts else None


def opened(config: MirrorsConfig, mirrors: Sequence[Mirror], reach: Reach, cancel: CancelToken) -> Session:
    """The session of all mirrors of a run: as many threads as the greatest of their limits says, each registry reached
    as the driver says, with what the configuration says of it over that. Raises InvalidInput for what needs the
    machine's consent, see `oci.mirror.config.check_consent`."""
    concurrency = max(mirror.limits.concurrency for mirror in mirrors)
    reached = {side: reach(side, concurrency) for side in ("source", "destination")}
    allowed = frozenset(word.strip() for word in os.environ.get(CONSENT, "").split(",") if word.strip())
    for base in reached.values():
        check_consent(config, mirrors, allowed, base.settings)
    anonymous = _Anonymous(frozenset(host for host, one in config.by_host.items() if one.anonymous))
    named = {host for mirror in mirrors for host in mirror.registries} | set(config.by_host)
    source, destination = (
        replace(
            base,
            credentials=Credentials([anonymous, base.credentials.named(named)]),
            per_registry={
                host: registry.over(base.settings(host)).with_(concurrency=concurrency + 1)
                for host, registry in config.by_host.items()
            },
            per_bucket={name: bucket.over(base.object_store(name)) for name, bucket in config.buckets.items()},
        )
        for base in reached.values()
    )
    return Session(source=source, destination=destination, concurrency=concurrency, cancel=cancel)


def run_mirrors(
    session: Session,
    mirrors: Sequence[Mirror],
    shared: Shared,
    *,
    on_done: Callable[[Mirror, WorkItem, tuple[ItemOutcome, ...]], None] | None = None,
    on_report: Callable[[MirrorReport], None] | None = None,
) -> list[MirrorReport]:
    """Runs mirrors side by side in one session, each with its own report, in the order of `mirrors`. Whatever fails is
    in the reports. Raises Cancelled and nothing else; `on_report` gets each report as soon as it is made, and then also
    those of mirrors that were cut short or not begun. The callbacks are called by one thread at a time."""
    lock = threading.Lock()
    begun: set[str] = set()

    def told(report: MirrorReport) -> None:
        with lock:
            if on_report is not None:
                on_report(report)

    def run_one(mirror: Mirror) -> MirrorReport:
        def done(item: WorkItem, outcomes: tuple[ItemOutcome, ...]) -> None:
            with lock:
                if on_done is not None:
                    on_done(mirror, item, outcomes)

        session.cancel.check()
        begun.add(mirror.name)
        with session.meter.part() as meter:
            report = run_mirror(session, mirror, shared, on_done=done, on_cut=told, meter=meter)
        told(report)
        return report

    expect(session, mirrors)
    with PartThreads(min(len(mirrors), SIDE_BY_SIDE), thread_name_prefix="mirror") as threads:
        futures = [threads.submit(run_one, mirror) for mirror in mirrors]
        try:
            return [future.result() for future in futures]
        except BaseException:
            session.cancel.cancel()
            wait(futures)
            for mirror in mirrors:
                if mirror.name not in begun:
                    told(not_begun(mirror))
            raise


def expect(session: Session, mirrors: Iterable[Mirror]) -> None:
    """Tells the session which repositories the mirrors will ask for."""
    mirrors = list(mirrors)
    session.expect("source", [mirror.source.store for mirror in mirrors if mirror.source.store is not None])
    session.expect("destination", [one.store for mirror in mirrors for one in mirror.destinations])


def run_mirror(
    session: Session,
    mirror: Mirror,
    shared: Shared,
    *,
    on_compared: Callable[[Comparison], None] | None = None,
    on_done: Callable[[WorkItem, tuple[ItemOutcome, ...]], None] | None = None,
    on_cut: Callable[[MirrorReport], None] | None = None,
    meter: Meter | None = None,
) -> MirrorReport:
    """Whatever fails is in the report. Raises Cancelled and nothing else; `on_cut` gets the report of what was done by
    then. `meter` counts what this mirror spends, where others share the session."""
    breaker, meter = shared.breaker, meter or session.meter
    try:
        comparison = compare(session, mirror, facts=shared.facts, breaker=breaker, care=shared.care, now=shared.now)
    except Cancelled:
        if on_cut is not None:
            on_cut(not_begun(mirror))
        raise
    except TransshipError as error:
        return of_failure(mirror, error, breaker, meter.receipt())
    if on_compared is not None:
        on_compared(comparison)
    outcomes: list[ItemOutcome] = []

    def done(item: WorkItem, carried: tuple[ItemOutcome, ...]) -> None:
        outcomes.extend(carried)
        if on_done is not None:
            on_done(item, carried)

    try:
        every = execute(
            session,
            comparison.work,
            breaker,
            listed=comparison.listed,
            width=min(session.concurrency, mirror.limits.concurrency),
            stop_at_failure=mirror.on_failure is OnFailure.STOP,
            on_done=done,
        )
    except Cancelled:
        if on_cut is not None:
            left = not_tried(comparison.work, outcomes, TransshipError(INTERRUPTED))
            on_cut(made_of(mirror, comparison, (*outcomes, *left), breaker, meter.receipt()))
        raise
    return made_of(mirror, comparison, every, breaker, meter.receipt())


INTERRUPTED = "the run was interrupted before it was done"


class FailedImage(msgspec.Struct, frozen=True, kw_only=True):
    """`names` are what to give as `only` to try it again: REGISTRY/REPOSITORY:TAG, or the mirror's source as it stands
    in the configuration, for all of it."""

    names: tuple[str, ...]
    destination: str
    error: str
    retryable: bool
    not_tried: bool = False
    """It wasn't even begun: `error` is a cause that it shares with others."""


class MirrorReport(msgspec.Struct, frozen=True, kw_only=True):
    """Numbers are of tags, or of bundles and locks, at all destinations together; `images` are those copied."""

    mirror: str
    source: str
    destinations: tuple[str, ...]
    in_place: int = 0
    copied: int = 0
    images: int = 0
    tags: tuple[str, ...] = ()
    """Names that were moved, in the order they were."""
    mutated: tuple[str, ...] = ()
    """Tags that are declared immutable and moved at the source; the destinations keep what they have."""
    unsigned: tuple[str, ...] = ()
    held: int = 0
    waiting: int = 0
    extra: int = 0
    nothing_taken: str = ""
    """Why the mirror is about nothing at all, when it is."""
    failed: tuple[FailedImage, ...] = ()
    causes: tuple[str, ...] = ()
    """Why registries were given up, each once."""
    receipt: Receipt = Receipt()

    @property
    def succeeded(self) -> bool:
        return not (self.failed or self.mutated or self.unsigned)

    @property
    def nothing_done(self) -> bool:
        """Whether it failed altogether: nothing was copied, and nothing was found in place."""
        return bool(self.failed) and not self.copied and not self.in_place

    @property
    def failed_names(self) -> tuple[str, ...]:
        """To be given as `only`."""
        return tuple(dict.fromkeys(name for failed in self.failed for name in failed.names))

    def __str__(self) -> str:
        """One line."""
        receipt = self.receipt
        waiting = f", {self.held} too young" if self.held else ""
        waiting += f", {self.waiting} left to the next run" if self.waiting else ""
        spent = f"{counted(receipt.total_requests, 'request')}, {receipt.seconds:.1f} s"
        return (
            f"{self.mirror}: {self.copied} copied, {self.in_place} in place, {len(self.failed)} failed{waiting}; "
            f"{show_size(receipt.bytes_written)} sent, {spent}"
        )

    def to_dict(self) -> dict[str, Any]:
        body = {name: getattr(self, name) for name in ("mirror", "source", "in_place", "copied", "images")}
        return body | {
            "succeeded": self.succeeded,
            "destinations": list(self.destinations),
            "tags": list(self.tags),
            "mutated": list(self.mutated),
            "unsigned": list(self.unsigned),
            "held": self.held,
            "waiting": self.waiting,
            "extra": self.extra,
            "nothing_taken": self.nothing_taken,
            "failed": msgspec.to_builtins(self.failed),
            "only": list(self.failed_names),
            "causes": list(self.causes),
            "receipt": self.receipt.to_dict(),
        }


def made_of(
    mirror: Mirror,
    comparison: Comparison,
    outcomes: Sequence[ItemOutcome],
    breaker: Breaker,
    receipt: Receipt,
    *,
    error: str = "",
) -> MirrorReport:
    """The report of a run that got as far as comparing.

    Every target of the comparison's work needs an outcome: a target without an outcome is reported as failed. `error`
    ended the run before its work was done.
    """
    done = [one for one in outcomes if one.status == DONE]
    rewritten = {one.destination for one in done if one.destination.startswith(ARCHIVE_PREFIX)}
    kept = [one for one in comparison.destinations if one.destination not in rewritten]
    return MirrorReport(
        mirror=mirror.name,
        source=str(mirror.source),
        destinations=tuple(str(destination) for destination in mirror.destinations),
        in_place=sum(one.count(TagState.IN_PLACE) for one in kept),
        copied=sum(max(1, len(one.tags)) for one in done),
        images=sum(one.images for one in done),
        tags=tuple(tag for one in done for tag in one.tags),
        mutated=comparison.named(TagState.MUTATED),
        unsigned=comparison.named(TagState.UNSIGNED),
        held=len(comparison.held),
        waiting=comparison.waiting,
        extra=comparison.extra,
        nothing_taken=comparison.nothing_taken,
        failed=(
            *_uncompared(mirror, comparison),
            *_uncarried(outcomes),
            *_unaccounted(comparison, outcomes),
            *_ended(mirror, error),
        ),
        causes=_causes(mirror, breaker),
        receipt=receipt,
    )


def of_failure(mirror: Mirror, error: TransshipError, breaker: Breaker, receipt: Receipt) -> MirrorReport:
    """The report of a mirror that couldn't even be compared."""
    failed = FailedImage(names=(str(mirror.source),), destination="", error=str(error), retryable=error.retryable)
    return MirrorReport(
        mirror=mirror.name,
        source=str(mirror.source),
        destinations=tuple(str(destination) for destination in mirror.destinations),
        failed=(failed,),
        causes=_causes(mirror, breaker),
        receipt=receipt,
    )


def not_begun(mirror: Mirror) -> MirrorReport:
    """The report of a mirror that nothing was done for, because the run was interrupted."""
    left = FailedImage(names=(str(mirror.source),), destination="", error=INTERRUPTED, retryable=True, not_tried=True)
    return MirrorReport(
        mirror=mirror.name,
        source=str(mirror.source),
        destinations=tuple(str(destination) for destination in mirror.destinations),
        failed=(left,),
    )


def _causes(mirror: Mirror, breaker: Breaker) -> tuple[str, ...]:
    """Of the places that the mirror names; what a lock names isn't known here."""
    stores = [mirror.source.store, *(destination.store for destination in mirror.destinations)]
    named = {place(side, str(store)) for store in stores if store for side in ("source", "destination")}
    return tuple(str(cause) for where, cause in breaker.causes.items() if where in named or mirror.source.lock)


def _uncompared(mirror: Mirror, comparison: Comparison) -> Iterable[FailedImage]:
    for destination in comparison.destinations:
        error = destination.error
        if error is not None:
            yield FailedImage(
                names=(str(mirror.source),),
                destination=destination.destination,
                error=str(error),
                retryable=error.retryable,
            )
        for tag in destination.tags:
            if tag.state is TagState.FAILED:
                name = f"{mirror.source.repository}:{tag.tag}" if mirror.source.repository else str(mirror.source)
                retryable = tag.error is not None and tag.error.retryable
                yield FailedImage(
                    names=(name,), destination=destination.destination, error=tag.reason, retryable=retryable
                )


def _uncarried(outcomes: Iterable[ItemOutcome]) -> Iterable[FailedImage]:
    for one in outcomes:
        if one.status != DONE:
            yield FailedImage(
                names=one.names,
                destination=one.destination,
                error=one.error,
                retryable=one.retryable,
                not_tried=one.status == SKIPPED,
            )


def _unaccounted(comparison: Comparison, outcomes: Sequence[ItemOutcome]) -> Iterable[FailedImage]:
    for item, target in unaccounted(comparison.work, outcomes):
        yield FailedImage(
            names=item.names,
            destination=target.destination,
            error="the run ended without an outcome for this destination; run the mirror again",
            retryable=True,
        )


def _ended(mirror: Mirror, error: str) -> Iterable[FailedImage]:
    if error:
        yield FailedImage(names=(str(mirror.source),), destination="", error=error, retryable=True)
