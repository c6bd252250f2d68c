"""Comparing a mirror, carrying what changed, and telling what was done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

import msgspec
from msgspec.structs import replace
from prefect import task
from prefect.client.orchestration import get_client
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from oci.errors import Incomplete, InvalidInput, StoreError, TransshipError
from oci.meter import RunMetrics, export_metrics
from oci.mirror.compare import compare
from oci.mirror.comparison import Comparison, TagState, WorkItem, WorkKey
from oci.mirror.config import BucketEntry, Mirror, MirrorsConfig
from oci.mirror.execute import ItemOutcome, execute_item, outcome_of, stopped_before
from oci.mirror.results import DriftReport, MirrorReport, made_of, mirror_metrics, of_failure
from oci.mirror.run import SIDE_BY_SIDE, MirrorRecorder, expect, opened
from oci.mirror.run_state import Shared
from oci.mirror.selection import expanded
from oci.reference import StoreName
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED
from oci.signatures.artifacts import MirrorReceipts
from oci.units import percent
from tasks.artifacts.history import MirrorLine, PastRun, keep_history, keep_overview
from tasks.artifacts.markdown import in_forms
from tasks.artifacts.pages import mirror_page
from tasks.artifacts.report import REFUSED, emit, write_page, write_table
from tasks.blocks import load_s3, load_signing_key
from tasks.fleet.limits import Slots, every_limit, limits_of
from tasks.run import ONCE, REPEATABLE, Run, Side, current

P = ParamSpec("P")
T = TypeVar("T")


class MirrorsRun(Run):
    """The mirrors of one flow run, in one session: connections, tokens and what is learned of registries are shared."""

    def __init__(self, config: MirrorsConfig, mirrors: Sequence[Mirror], shared: Shared) -> None:
        super().__init__(max((mirror.limits.concurrency for mirror in mirrors), default=1))
        self.config = config
        self.mirrors = mirrors
        self.shared = shared
        self.places = asyncio.Semaphore(SIDE_BY_SIDE)
        """Of the mirrors that are compared and carried out at a time."""
        self.metrics: list[RunMetrics] = []
        """The numbers of the mirrors that have ended."""
        self.telling = asyncio.Lock()
        self.overview: dict[str, MirrorLine] = {}
        """What the overview is to say of the mirrors that have ended."""
        self._limits: dict[str, int] | None = None
        self._asking = asyncio.Lock()
        self._slots: dict[frozenset[str], Slots] = {}

    async def every(self) -> Sequence[Mirror]:
        """The mirrors, those of namespaces as one for each of their repositories."""
        if not any(mirror.source.namespace for mirror in self.mirrors):
            return self.mirrors
        try:
            return await self.in_thread(expanded, await self.session(), self.mirrors)
        except TransshipError:
            return self.mirrors  # each says why it has no session

    async def limited(self, names: Iterable[str]) -> tuple[dict[str, int], Slots]:
        """Of the named limits those that the Prefect server has, which is asked once, and the slots of all mirrors
        under the same limits."""
        async with self._asking:
            if self._limits is None:
                self._limits = await every_limit()
        limits = {name: self._limits[name] for name in names if name in self._limits}
        if frozenset(limits) not in self._slots:
            self._slots[frozenset(limits)] = Slots(limits, min(limits.values(), default=1))
        return limits, self._slots[frozenset(limits)]

    async def close(self) -> None:
        await asyncio.gather(*(slots.close() for slots in self._slots.values()))
        if self._session is not None:
            self.shared.facts.locate(self._session.ledger.locations())
        await asyncio.to_thread(self.shared.facts.save)
        if warning := self.shared.facts.warning(self.mirrors):
            get_run_logger().warning("%s", warning)
        if self.overview:
            await keep_overview(self.overview)
        await super().close()

    async def _open(self) -> Session:
        side = Side(credentials=self.config.credentials)
        buckets = dict.fromkeys(bucket for mirror in self.mirrors for bucket in mirror.buckets)
        blocks = {bucket: self.config.buckets.get(bucket, BucketEntry()).s3_store for bucket in buckets}
        stores = {bucket: await load_s3(block) for bucket, block in blocks.items() if block}
        reached = {name: replace(await side.access(name), per_bucket=stores) for name in ("source", "destination")}
        # A flow has no number of threads beside those of the configuration.
        session = opened(self.config, self.mirrors, lambda name, _threads: reached[name], self.cancel)
        expect(session, self.mirrors)
        session.ledger.suggest(self.shared.facts.blob_locations())
        return session


class MirrorRun(Run):
    """One mirror, in the session of all of them. Used from one event loop; the work itself runs in threads."""

    def __init__(self, whole: MirrorsRun, mirror: Mirror) -> None:
        super().__init__(mirror.limits.concurrency)
        self.cancel = whole.cancel
        self.config = whole.config
        self.mirror = mirror
        self.shared = whole.shared
        self.whole = whole
        self.comparison: Comparison | None = None
        self.fleet = ""
        """What was decided about helpers, in words."""
        self.outcomes: dict[tuple[str, StoreName], ItemOutcome] = {}
        """By source and destination."""

    async def _open(self) -> Session:
        return await self.whole.session()

    async def limit(self, names: Iterable[str]) -> None:
        limits, self.slots = await self.whole.limited(names)
        self.width = max(1, min([self.width, *limits.values()]))

    async def in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As Run does it; what it costs is counted for this mirror."""
        with self.meter.part(self.meter):
            return await super().in_thread(function, *args, **kwargs)

    async def close(self) -> None:
        self._session, self.slots = None, Slots()  # the others go on with them
        await super().close()

    @property
    def compared(self) -> Comparison:
        """Raises InvalidInput before anything is compared."""
        if self.comparison is None:
            raise InvalidInput("nothing is compared yet", hint="run compare_mirror first")
        return self.comparison

    def item(self, key: WorkKey) -> WorkItem:
        """Raises InvalidInput for something that isn't among the work of the comparison."""
        for item in self.compared.work:
            if item.key == key:
                return item
        raise InvalidInput(f"{key[0]} isn't among the changed images for {', '.join(key[1])}")

    def percent(self) -> float:
        """Of the images on their way to each destination, how many have come to an end, good or bad."""
        return round(percent(len(self.outcomes), sum(len(item.targets) for item in self.compared.work)), 1)

    async def compare(self) -> Comparison:
        return await self.in_thread(compare, await self.session(), self.mirror, self.shared)

    async def carry(self, item: WorkItem) -> tuple[ItemOutcome, ...]:
        """Brings one image to its destinations, as far as the registries that it needs haven't been given up."""
        session = await self.session()
        async with self.slots.slot():
            breaker, listed = self.shared.breaker, self.compared.listed
            outcomes = await self.in_thread(execute_item, session, item, breaker, listed=listed)
        self.record(item, outcomes)
        return outcomes

    def record(self, item: WorkItem, outcomes: tuple[ItemOutcome, ...]) -> None:
        self.outcomes.update({(item.source, outcome.destination): outcome for outcome in outcomes})

    def undelivered(self, item: WorkItem) -> WorkItem:
        """Returns the item without the destinations that have it by now."""
        outcomes = (self.outcomes.get((item.source, target.destination)) for target in item.targets)
        return item.without({outcome.destination for outcome in outcomes if outcome and outcome.status == DONE})

    def fail(self, items: Iterable[WorkItem], error: TransshipError) -> None:
        """Notes that the task run of these items failed, so that the report has a failure for it: the targets without
        an outcome failed; when all of them are done, all of them failed."""
        planned = [(item, target) for item in items for target in item.targets]
        outcomes = [self.outcomes.get((item.source, target.destination)) for item, target in planned]
        all_done = all(outcome is not None and outcome.status == DONE for outcome in outcomes)
        for (item, target), outcome in zip(planned, outcomes, strict=True):
            if outcome is None or all_done:
                self.record(item, (outcome_of(item, target, FAILED, error=error),))

    def leave(self, items: Iterable[WorkItem]) -> None:
        """Notes items that aren't begun, because another failed."""
        for item in items:
            self.record(item, stopped_before(item))


EVENT = "transship.mirror"
"""Followed by `.finished`, `.failed` or `.drifted`."""


@task(name="compare mirror", task_run_name="compare {mirror}", **REPEATABLE)
async def compare_mirror(mirror: str) -> None:  # noqa: ARG001 - shown in the UI
    """Asks both sides what their tags show, HEAD against HEAD, and lists what changed in a table artifact.

    Never cached, not even within a flow run: only the destination knows what is there.
    """
    run = current(MirrorRun)
    run.comparison = await run.compare()
    if work := run.comparison.work:
        await run.limit(limits_of(*(store for item in work for _, store in item.stores)))
        rows = [
            {
                "Image": item.title,
                "Tags": " ".join(part.tags),
                "Destination": str(part.destination),
                "Digest": item.source,
            }
            for item in work
            for part in item.targets
        ]
        await write_table("mirror-changes", run.mirror.name, rows, f"What changed of {run.mirror.name}")
    await _name_run(run)
    get_run_logger().info("%s: %s", run.mirror.name, run.comparison.in_words)
    if nothing := run.comparison.nothing_taken:
        get_run_logger().warning("%s: nothing of %s is mirrored: %s", run.mirror.name, run.mirror.source, nothing)


async def _name_run(run: MirrorRun) -> None:
    """`shop: 2 changed, 41 unchanged -> registry.corp.example/mirror/shop`: known only now."""
    name = flow_run.name
    if not name or not flow_run.id or not name.startswith(f"{run.mirror.name} -> "):
        return
    changed = sum(max(1, len(target.tags)) for item in run.compared.work for target in item.targets)
    counts = f": {changed} changed, {run.compared.count(TagState.IN_PLACE)} unchanged -> "
    async with get_client() as client:
        await client.update_flow_run(flow_run.id, name=name.replace(" -> ", counts, 1))


def carry_name(parameters: dict[str, Any]) -> str:
    """`mirror web:1.4.0 -> registry.corp.example/mirror/web`"""
    destinations: Sequence[str] = parameters["destinations"]
    where = destinations[0] if len(destinations) == 1 else f"{len(destinations)} destinations"
    return f"mirror {parameters['title']} -> {where}"


@task(
    name="mirror image",
    task_run_name=carry_name,  # type: ignore[arg-type]  # Prefect takes it, but its Protocol asks for a class method
    **REPEATABLE,
)
async def mirror_image(title: str, images: list[WorkKey], destinations: list[str]) -> list[ItemOutcome]:  # noqa: ARG001
    """Brings images, each named by its source and its destinations, to these, and gives them their tags there.

    What became of each is kept in the run, failed ones included; then the first failure is raised, or an Incomplete.
    """
    run = current(MirrorRun)
    carried = [outcome for image in images for outcome in await run.carry(run.undelivered(run.item(image)))]
    failures = [
        StoreError(outcome.error, subject=", ".join(outcome.names), retryable=outcome.retryable)
        for outcome in carried
        if outcome.status != DONE
    ]
    if len(failures) > 1:
        raise Incomplete(f"{len(failures)} of {len(carried)} failed, the first: {failures[0]}", failures)
    if failures:
        raise failures[0]
    return carried


async def make_recorder() -> MirrorRecorder | None:
    """Reads the key of the mirror's receipts, from its block or its file; None where it leaves nothing in writing.
    Raises InvalidInput."""
    run = current(MirrorRun)
    receipts = run.mirror.receipts
    if receipts == MirrorReceipts():
        return None
    key = await load_signing_key(receipts.signing_key)
    make = partial(MirrorRecorder, run.mirror, key=key, run=str(flow_run.id or ""))
    return await run.in_thread(make)


@task(name="record mirror", task_run_name="write the receipts of {mirror}", **REPEATABLE)
async def record_mirror(mirror: str, recorder: MirrorRecorder) -> None:  # noqa: ARG001 - shown in the UI
    """Writes and attaches the receipts of a run that is over."""
    run = current(MirrorRun)
    await run.in_thread(recorder.record, await run.session(), run.compared, list(run.outcomes.values()))


@task(name="report mirror", task_run_name="report {mirror}", **ONCE)
async def report_mirror(mirror: str, error: str = "") -> MirrorReport:  # noqa: ARG001 - shown in the UI
    """Writes the page of the run and that of the mirror's last runs, the table of what failed, and emits
    `transship.mirror.finished`, or `.failed`; and `.drifted` when an immutable tag moved. Writes metrics where the
    worker's environment says so."""
    run = current(MirrorRun)
    report, name = _report(run, error), run.mirror.name
    await write_page("mirror", name, mirror_page(report), f"What the mirror {name} did")
    if report.failed:
        rows = (
            {
                "Image": ", ".join(failed.names) or name,
                "Destination": failed.destination,
                "Trying again": "may help" if failed.retryable else "won't help",
                "Cause": "not tried" if failed.not_tried else in_forms(failed.error),
            }
            for failed in report.failed
        )
        await write_table("mirror-failed", name, rows, f"What failed of {name}")
    sent, failed = report.receipt.bytes_written, len(report.failed)
    past = PastRun(
        succeeded=report.succeeded,
        copied=report.copied,
        unchanged=report.in_place,
        failed=failed,
        sent=sent,
        seconds=round(report.receipt.seconds, 3),
    )
    await keep_history(name, past)
    line = MirrorLine(succeeded=report.succeeded, failed=failed, sent=sent)
    if report.succeeded:
        line = line.model_copy(update={"complete": datetime.now(UTC), "drift": report.extra})
    run.whole.overview[name] = line
    emit(f"{EVENT}.{'finished' if report.succeeded else 'failed'}", name, report.to_dict())
    for tag, reason in report.refusals.items():
        emit(REFUSED, f"{report.source}:{tag}", {"mirror": name, "image": f"{report.source}:{tag}", "reason": reason})
    if report.mutated:
        emit(f"{EVENT}.drifted", name, {"mirror": name, "mutated": list(report.mutated)})
    async with run.whole.telling:
        numbers, earlier = mirror_metrics(report), run.whole.metrics
        await asyncio.to_thread(export_metrics, numbers, warn=get_run_logger().warning, before=tuple(earlier))
        earlier.append(numbers)
    log = get_run_logger().info if report.succeeded else get_run_logger().error
    log("%s", report)
    return report


def _report(run: MirrorRun, error: str) -> MirrorReport:
    receipt = run.receipt()
    if run.comparison is None:
        return of_failure(run.mirror, TransshipError(error or "nothing was compared"), run.shared.breaker, receipt)
    outcomes = list(run.outcomes.values())
    report = made_of(run.mirror, run.comparison, outcomes, run.shared.breaker, receipt, error=error)
    return msgspec.structs.replace(report, fleet=run.fleet)


@task(name="check mirror", task_run_name="check {mirror}", **REPEATABLE)
async def check_mirror(mirror: str) -> DriftReport:
    """Compares closely, lists the drift in a table artifact, and emits `transship.mirror.drifted` when there is any."""
    run = current(MirrorRun)
    comparison = await run.compare()
    report = DriftReport.of(comparison, run.receipt(), comparison.lag(datetime.now(UTC)))
    await write_table("mirror-drift", mirror, map(msgspec.structs.asdict, report.drift), str(report))
    run.whole.overview[mirror] = MirrorLine(drift=report.differing)
    if report.drifted:
        emit(f"{EVENT}.drifted", mirror, report.to_dict())
    log = get_run_logger().warning if report.drifted else get_run_logger().info
    log("%s", report)
    return report
