"""A whole run: a mirror compared, what changed carried, and a report of it. For drivers that don't take it apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

from oci.cancel import CancelToken
from oci.errors import Cancelled, TransshipError
from oci.mirror.breaker import Breaker
from oci.mirror.carry import Carried, carry_all, left_undone
from oci.mirror.compare import RUN, Care, compare
from oci.mirror.comparison import Comparison
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.facts import Facts
from oci.mirror.report import INTERRUPTED, MirrorReport, made_of, not_begun, of_failure
from oci.mirror.rules import OnFailure
from oci.mirror.work import WorkItem
from oci.registry.credentials.chain import Credentials
from oci.registry.credentials.credential import ANONYMOUS, Credential
from oci.relocation.session import Access, Session

Reach: TypeAlias = Callable[[str, int], Access]
"""How a driver reaches one side, "source" or "destination", with so many threads, where the configuration says nothing;
and who it is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the mirrors of one run share."""

    facts: Facts
    breaker: Breaker
    care: Care = RUN
    now: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Nobody:
    """Who we are at registries that the configuration wants to be anonymous at."""

    hosts: frozenset[str]

    def find(self, registry: str, repository: str) -> Credential | None:
        del repository
        return ANONYMOUS if registry in self.hosts else None


def opened(config: MirrorsConfig, mirror: Mirror, reach: Reach, cancel: CancelToken) -> Session:
    """A session for one mirror: as many threads as its limits say, each registry reached as the configuration says."""
    concurrency = mirror.limits.concurrency
    per_registry = {host: one.settings(concurrency + 1) for host, one in config.registries.items()}
    nobody = _Nobody(frozenset(host for host, one in config.registries.items() if one.anonymous))
    source, destination = (
        replace(
            base,
            credentials=Credentials([nobody, base.credentials]),
            per_registry=per_registry,
            per_bucket={name: bucket.over(base.object_store(name)) for name, bucket in config.buckets.items()},
        )
        for base in (reach("source", concurrency), reach("destination", concurrency))
    )
    return Session(source=source, destination=destination, concurrency=concurrency, cancel=cancel)


def run_mirror(
    session: Session,
    mirror: Mirror,
    shared: Shared,
    *,
    on_compared: Callable[[Comparison], None] | None = None,
    on_done: Callable[[WorkItem, tuple[Carried, ...]], None] | None = None,
    on_cut: Callable[[MirrorReport], None] | None = None,
) -> MirrorReport:
    """Whatever fails is in the report. Raises Cancelled and nothing else; `on_cut` gets the report of what was done by
    then."""
    breaker = shared.breaker
    try:
        comparison = compare(session, mirror, facts=shared.facts, breaker=breaker, care=shared.care, now=shared.now)
    except Cancelled:
        if on_cut is not None:
            on_cut(not_begun(mirror))
        raise
    except TransshipError as error:
        return of_failure(mirror, error, breaker, session.meter.receipt())
    if on_compared is not None:
        on_compared(comparison)
    outcomes: list[Carried] = []

    def done(item: WorkItem, carried: tuple[Carried, ...]) -> None:
        outcomes.extend(carried)
        if on_done is not None:
            on_done(item, carried)

    try:
        every = carry_all(
            session,
            comparison.work,
            breaker,
            listed=comparison.listed,
            stop_at_failure=mirror.on_failure is OnFailure.STOP,
            on_done=done,
        )
    except Cancelled:
        if on_cut is not None:
            left = left_undone(comparison.work, outcomes, TransshipError(INTERRUPTED))
            on_cut(made_of(mirror, comparison, (*outcomes, *left), breaker, session.meter.receipt()))
        raise
    return made_of(mirror, comparison, every, breaker, session.meter.receipt())
