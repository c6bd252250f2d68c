"""Comparing a mirror, carrying what changed, and telling what was done."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel

from oci.errors import Incomplete, StoreError, TransshipError
from oci.mirror.compare import compare
from oci.mirror.comparison import Comparison, TagState
from oci.mirror.execute import ItemOutcome, execute_item
from oci.mirror.run import MirrorReport, made_of, of_failure
from oci.mirror.work import WorkItem, WorkKey
from oci.reference import parse_store
from oci.relocation.transfer import DONE
from tasks.limits import limits_of
from tasks.metrics import of_mirror, tell
from tasks.mirror_history import PastRun, keep_history
from tasks.mirror_report import DriftReport, MirrorOutcome
from tasks.mirror_run import MirrorRun, current_mirror
from tasks.report import artifact_key
from tasks.retries import DELAYS, RETRIES, worth_retrying

EVENT = "transship.mirror"
"""Followed by `.finished`, `.failed` or `.drifted`."""

TASK_RUN_LIMIT = 1000
"""Task runs that one mirror makes at most: the Prefect server keeps some 19 KB and works some 7 ms for each."""

_ROWS = 1000
_EVENT_NAMES = 100
"""Names that travel in an event: one has a size limit."""


class Compared(BaseModel):
    """A comparison in numbers; the comparison itself stays in the process."""

    in_place: int
    missing: int
    stale: int
    mutated: int
    unsigned: int
    failed: int
    extra: int
    changed_images: int

    def __str__(self) -> str:
        parts = [f"{count} {name.replace('_', ' ')}" for name, count in self.model_dump().items() if count]
        return ", ".join(parts) or "nothing there"

    @classmethod
    def of(cls, comparison: Comparison) -> Compared:
        return cls(
            in_place=comparison.count(TagState.IN_PLACE),
            missing=comparison.count(TagState.MISSING),
            stale=comparison.count(TagState.STALE),
            mutated=comparison.count(TagState.MUTATED),
            unsigned=comparison.count(TagState.UNSIGNED),
            failed=comparison.count(TagState.FAILED),
            extra=comparison.extra,
            changed_images=len(comparison.work),
        )


@task(
    name="compare mirror",
    task_run_name="compare {mirror}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def compare_mirror(mirror: str) -> Compared:  # noqa: ARG001 - shown in the UI
    """Asks both sides what their tags show, HEAD against HEAD, and lists what changed in a table artifact.

    Never cached, not even within a flow run: only the destination knows what is there.
    """
    run = current_mirror()
    run.comparison = await _compare(run)
    found = Compared.of(run.comparison)
    if run.comparison.work:
        await run.limit(limits_of(*(parse_store(store) for item in run.comparison.work for _, store in item.stores)))
        await _list_changes(run)
    await _name_run(run)
    get_run_logger().info("%s: %s", run.mirror.name, found)
    if nothing := run.comparison.nothing_taken:
        get_run_logger().warning("%s: nothing of %s is mirrored: %s", run.mirror.name, run.mirror.source, nothing)
    return found


async def _compare(run: MirrorRun) -> Comparison:
    shared = run.shared
    session = await run.session()
    comparison = await run.in_thread(
        compare, session, run.mirror, facts=shared.facts, breaker=shared.breaker, care=shared.care, now=shared.now
    )
    await asyncio.to_thread(shared.facts.save)
    return comparison


async def _list_changes(run: MirrorRun) -> None:
    rows = [
        {"Image": item.title, "Tags": " ".join(target.tags), "Destination": target.destination, "Digest": item.source}
        for item in run.compared.work
        for target in item.targets
    ]
    await acreate_table_artifact(
        key=artifact_key("mirror-changes", run.mirror.name),
        table=rows[:_ROWS],
        description=f"What changed of {run.mirror.name}",
    )


async def _name_run(run: MirrorRun) -> None:
    """`shop 12 tags -> registry.corp.example`: known only now."""
    name = flow_run.name
    count = len({tag for item in run.compared.work for target in item.targets for tag in target.tags})
    if not name or not flow_run.id or not name.startswith(f"{run.mirror.name} -> "):
        return
    async with get_client() as client:
        await client.update_flow_run(flow_run.id, name=name.replace(" -> ", f" {count} tags -> ", 1))


def carry_name(parameters: dict[str, Any]) -> str:
    """`mirror web:1.4.0 -> registry.corp.example/mirror/web`"""
    destinations: Sequence[str] = parameters["destinations"]
    where = destinations[0] if len(destinations) == 1 else f"{len(destinations)} destinations"
    return f"mirror {parameters['title']} -> {where}"


@task(
    name="mirror image",
    task_run_name=carry_name,  # type: ignore[arg-type]  # Prefect takes it, but its Protocol asks for a class method
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    retry_jitter_factor=0.5,
    cache_policy=NO_CACHE,
)
async def mirror_image(title: str, images: list[WorkKey], destinations: list[str]) -> list[ItemOutcome]:  # noqa: ARG001
    """Brings images, each named by its source and its destinations, to these, and gives them their tags there.

    What became of each is kept in the run, failed ones included; then the first failure is raised, or an Incomplete.
    """
    run = current_mirror()
    failures: list[TransshipError] = []
    carried: list[ItemOutcome] = []
    for image in images:
        for one in await _carried(run, _left(run, run.item(image))):
            carried.append(one)
            if one.status != DONE:
                failures.append(StoreError(one.error, subject=", ".join(one.names), retryable=one.retryable))
    if len(failures) > 1:
        raise Incomplete(f"{len(failures)} of {len(carried)} failed, the first: {failures[0]}", failures)
    if failures:
        raise failures[0]
    return carried


def _left(run: MirrorRun, item: WorkItem) -> WorkItem:
    """The item without the destinations that have it by now."""
    known = run.outcomes
    done = {name for (source, name), one in known.items() if source == item.source and one.status == DONE}
    return item.without(done)


async def _carried(run: MirrorRun, item: WorkItem) -> tuple[ItemOutcome, ...]:
    session = await run.session()
    async with run.slots.slot():
        outcomes = await run.in_thread(execute_item, session, item, run.shared.breaker, listed=run.compared.listed)
    run.done(item, outcomes)
    return outcomes


async def left_out(item: WorkItem) -> None:
    """Notes an item that isn't worth a task run: a registry that it needs has been given up."""
    await _carried(current_mirror(), item)


def useless(item: WorkItem) -> bool:
    return current_mirror().shared.breaker.cause(item.places) is not None


def batches(items: Sequence[WorkItem], limit: int = TASK_RUN_LIMIT) -> list[list[WorkItem]]:
    """What each task run is to carry: one item, unless there are more than `limit`; then the rest is shared out among
    the later half of the task runs. A lock, and a bundle with many images, is one item."""
    alone = len(items) if len(items) <= limit else limit // 2
    rest, shares = items[alone:], limit - alone
    groups = [list(rest[number::shares]) for number in range(min(shares, len(rest)))]
    return [*([item] for item in items[:alone]), *groups]


@task(name="report mirror", task_run_name="report {mirror}", cache_policy=NO_CACHE)
async def report_mirror(mirror: str, error: str = "") -> MirrorOutcome:  # noqa: ARG001 - shown in the UI
    """Writes the page of the run and that of the mirror's last runs, the table of what failed, and emits
    `transship.mirror.finished`, or `.failed`; and `.drifted` when an immutable tag moved. Tells the metrics where the
    worker's environment says so."""
    run = current_mirror()
    report = _report(run, error)
    written = MirrorOutcome.of(report)
    name = run.mirror.name
    await acreate_markdown_artifact(
        key=artifact_key("mirror", name), markdown=written.to_markdown(), description=f"What the mirror {name} did"
    )
    if written.failed:
        rows = [
            {
                "Image": ", ".join(failed.names) or name,
                "Destination": failed.destination,
                "Trying again": "may help" if failed.retryable else "won't help",
                "Cause": "not tried" if failed.not_tried else failed.error,
            }
            for failed in written.failed[:_ROWS]
        ]
        await acreate_table_artifact(
            key=artifact_key("mirror-failed", name), table=rows, description=f"What failed of {name}"
        )
    await keep_history(name, _past(written))
    payload = written.model_dump(mode="json") | {"only": written.only[:_EVENT_NAMES]}
    _emit("finished" if written.succeeded else "failed", name, payload)
    if written.mutated:
        _emit("drifted", name, {"mirror": name, "mutated": written.mutated[:_EVENT_NAMES]})
    numbers = of_mirror(report)
    await asyncio.to_thread(tell, numbers, warn=get_run_logger().warning, before=tuple(run.told))
    run.told.append(numbers)
    log = get_run_logger().info if written.succeeded else get_run_logger().error
    log("%s", written)
    return written


def _report(run: MirrorRun, error: str) -> MirrorReport:
    receipt = run.receipt()
    if run.comparison is None:
        return of_failure(run.mirror, TransshipError(error or "nothing was compared"), run.shared.breaker, receipt)
    outcomes = list(run.outcomes.values())
    return made_of(run.mirror, run.comparison, outcomes, run.shared.breaker, receipt, error=error)


def _past(written: MirrorOutcome) -> PastRun:
    return PastRun(
        succeeded=written.succeeded,
        copied=written.copied,
        unchanged=written.in_place,
        failed=len(written.failed),
        sent=written.cost.bytes_written,
        seconds=written.cost.seconds,
    )


@task(
    name="check mirror",
    task_run_name="check {mirror}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def check_mirror(mirror: str) -> DriftReport:
    """Compares closely, lists the drift in a table artifact, and emits `transship.mirror.drifted` when there is any."""
    run = current_mirror()
    comparison = await _compare(run)
    found = DriftReport.of(comparison, run.receipt(), comparison.lag(datetime.now(UTC)))
    rows = [tag.model_dump() for tag in found.drift[:_ROWS]]
    await acreate_table_artifact(key=artifact_key("mirror-drift", mirror), table=rows, description=str(found))
    if found.drifted:
        payload = found.model_dump(mode="json")
        payload["drift"] = payload["drift"][:_EVENT_NAMES]
        _emit("drifted", mirror, payload)
    log = get_run_logger().warning if found.drifted else get_run_logger().info
    log("%s", found)
    return found


def _emit(ending: str, mirror: str, payload: dict[str, Any]) -> None:
    shortened = {key: value[:_EVENT_NAMES] if isinstance(value, list) else value for key, value in payload.items()}
    emit_event(
        event=f"{EVENT}.{ending}",
        resource={"prefect.resource.id": f"{EVENT}.{mirror}", "prefect.resource.name": mirror},
        payload=shortened,
    )
