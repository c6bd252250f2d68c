"""Relocating a bundle, an image, what a lock lists or an archive: resolve, fetch, push, publish, verify, report.

A helper transfers some of the images for another run, or writes some parts of an archive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.parameters.forms import alone, flat, named
from flows.parameters.relocate import PartsParameters, RelocateParameters, ShardParameters, TarballOptions
from oci.bundle.lockfile import write_lock
from oci.digest import Digest
from oci.errors import Incomplete, TransshipError
from oci.export.export import seal_archive
from oci.output import check_outputs, write_json
from oci.receipts.record import Recorder
from oci.registry.http.pace import TokenBucket
from oci.relocation.driver import Step, Verify
from oci.relocation.plan import Plan
from oci.relocation.report import RelocationIncomplete, RelocationReport, result_lock
from oci.relocation.request import ReceiptOptions
from oci.relocation.shards import Preview
from oci.relocation.transfer import FAILED
from oci.units import percent, show_size
from tasks.archive import (
    ExportRun,
    PartsAccount,
    complete_tarball,
    plan_tarball,
    verify_tarball,
    write_here,
    write_on_fleet,
    write_tarball,
)
from tasks.artifacts.report import artifact_key, heartbeats, percent_shown
from tasks.blocks import load_signing_key
from tasks.fleet.dispatch import Fleet
from tasks.fleet.queue import Taker
from tasks.fleet.spread import Spread
from tasks.relocate import (
    RelocationRun,
    fetch_referenced_images,
    names_of,
    progress_shown,
    publish,
    push_to_target_registry,
    report,
    resolve_bundle,
    verify,
)
from tasks.run import (
    cancelled,
    completed,
    errors_alone,
    failed,
    failed_images,
    or_failed,
    reported_when_cancelled,
    running,
    some_at_a_time,
    together,
)
from tasks.shards import RelocationWork, can_begin, images_result, images_stay_here, open_shard


@named(RelocateParameters)
def run_name(parameters: RelocateParameters) -> str:
    """`shop-bundle 1.4.0 -> registry.corp.example/mirror/shop`"""
    return f"{parameters.short_source} -> {parameters.request().destination.short}"


@flow(name="relocate", flow_run_name=run_name, persist_result=False)
@flat
async def relocate(parameters: RelocateParameters) -> RelocationReport:
    """Copies images from registry to registry, every byte as it is, and names nothing until all of it has arrived. A
    source, a destination or both may be an archive.

    Raises RelocationIncomplete when images failed; the others are in place and are not sent again next time. Any other
    TransshipError is what ended the run early. Either way the report artifact and the event are written first.
    """
    async with running(parameters.run()) as run:

        async def report_cancelled() -> None:
            run.relocation.error = cancelled()
            await report.fn(run.destination)

        report_path = ""
        try:
            await run.in_thread(check_outputs, parameters.report, parameters.lock_output)
            report_path = parameters.report
            recorder = await _recorder(run, parameters)
            async with reported_when_cancelled(report_cancelled):
                if isinstance(run, ExportRun):
                    await _write_out(run, parameters, recorder)
                else:
                    await _copy(run, parameters, recorder)
            if parameters.lock_output:
                relocation = (await run.session(), run.relocation.request, run.relocation.plan)
                await run.in_thread(lambda: write_lock(parameters.lock_output, result_lock(*relocation)))
        except TransshipError as error:
            run.relocation.error = error
        written = await report(run.destination)
        if report_path:
            await run.in_thread(write_json, report_path, written.to_dict())
        cause = run.relocation.error
        if isinstance(cause, Incomplete):
            cause = RelocationIncomplete(written, cause)
        return completed(written) if cause is None else cast("RelocationReport", failed(cause))


relocate_sync = alone(relocate, RelocateParameters)


async def _recorder(run: RelocationRun, parameters: RelocateParameters) -> Recorder | None:
    """Reads the key before any work; None where nothing is to be recorded."""
    if parameters.receipts == ReceiptOptions() and not parameters.signed:
        return None
    key = await load_signing_key(parameters.signing_key)
    make = partial(Recorder, verify=parameters.verify, key=key, run=str(flow_run.id or ""))
    return await run.in_thread(make, parameters.receipts, run.relocation.request)


async def _copy(run: RelocationRun, parameters: RelocateParameters, recorder: Recorder | None) -> None:
    source = await resolve_bundle(parameters.kind.value, parameters.source)
    fleet = None if parameters.fleet is None else parameters.fleet.sent_to(parameters.fleet.deployment)
    plans_first = fleet is None or recorder is not None or not can_begin(run.relocation.request, await run.session())
    if plans_first:
        await fetch_referenced_images(source)
        plan = run.relocation.plan
        if recorder is not None:
            recorder.check(plan)
        if fleet is not None:
            run.fleet = images_stay_here(plan, await run.session(), always=fleet.always)
        fleet = None if run.fleet or not plan.to_transfer else fleet
    async with _pushing(run, parameters, fleet) as push:
        if not plans_first:
            await fetch_referenced_images(source)
        # As asked for: a digest is wider than the page.
        async with progress_shown(run, run.source.reference):
            await push()
    run.relocation.check_complete()
    for step in run.relocation.closing_steps:
        destination = parameters.destination
        await (verify(destination) if step is Step.VERIFY else publish(destination, step.value))
    if recorder is not None:
        await run.in_thread(recorder.record, await run.session(), run.result())


_FOUND_EVERY = 1.0
"""Seconds between two looks at what planning has found."""


@asynccontextmanager
async def _pushing(
    run: RelocationRun, parameters: RelocateParameters, fleet: Fleet | None
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Gives what transfers the images of the run's plan: with helpers where that is faster. They may begin with what
    planning finds, where that is done in the block. What only this run may write comes last."""
    do = partial(_push, run)
    if fleet is None:
        yield lambda: some_at_a_time(run.width, do, [image.digest for image in run.relocation.plan.to_transfer])
        return
    sent = partial(ShardParameters.sent, parameters)
    work = RelocationWork(run, await run.session(), sent, trusting=not parameters.how.repair)
    spread: Spread[Digest] = Spread(run.destination, work, fleet)
    loop = asyncio.get_running_loop()

    def find(part: Plan, share: float) -> None:
        loop.call_soon_threadsafe(lambda: spread.offer(work.find(part, share), share))

    async def push() -> None:
        plan = run.relocation.plan
        bundles = [image.digest for image in plan.to_transfer if image.is_bundle]
        images = [image.digest for image in plan.to_transfer if not image.is_bundle]
        await spread.carry_out(images, do, width=run.width, images_together=work.images_together)
        await some_at_a_time(run.width, do, bundles)

    run.on_node = Preview(run.relocation.request, find, every=_FOUND_EVERY).see
    try:
        with errors_alone():
            async with spread.opened():
                yield push
    finally:
        run.fleet = spread.decision.reason


async def _push(run: RelocationRun, images: list[Digest]) -> None:
    """One that fails doesn't stop the others: its outcome is kept in the run."""
    plan = run.relocation.plan
    with suppress(TransshipError):
        await push_to_target_registry(names_of(plan, images), str(plan.destination))


@flow(name="relocate-shard", persist_result=False)
@flat
async def relocate_shard(parameters: ShardParameters) -> None:
    """Helps with a relocation: takes shards of its images from the queue until there are none, and names none of them,
    which is for the run that knows all of it.

    What became of each shard stands in the queue. The run fails when an image did.
    """
    key = artifact_key("shard", parameters.destination)
    async with running(parameters.run(), heartbeats(key, dict)) as run, parameters.queue.opened() as queue:
        opened = partial(open_shard, run, ask=bool(flow_run.run_count > 1))
        taker = Taker(queue, opened, partial(images_result, run))
        do, images = partial(_push, run), parameters.images_together
        await together(taker.carry_out(do, width=lambda: run.width, images_together=images))
    outcomes = run.relocation.outcomes.values()
    failures = [f"{each.subject}: {each.error}" for each in outcomes if each.status == FAILED]
    return cast("None", failed_images(failures, len(outcomes)))


async def _write_out(run: ExportRun, parameters: RelocateParameters, recorder: Recorder | None) -> None:
    """Writes it in parts, straight to where it is to be, then what goes beside it."""
    location = parameters.archive
    if await _plan_out(parameters):
        await _write(run, parameters)
        await complete_tarball(location)
    if parameters.verify is not Verify.NONE:
        await verify_tarball(location, deep=parameters.verify is Verify.DEEP)
    seal = partial(
        seal_archive,
        sha256sums=bool(parameters.tarball and parameters.tarball.sha256sums),
        recorder=recorder,
        verification=run.relocation.verification,
    )
    await run.in_thread(seal, await run.session(), run.relocation.plan, run.archive_planned.locations, location)


async def _plan_out(parameters: RelocateParameters) -> bool:
    """Says whether there is anything to write."""
    source = await resolve_bundle(parameters.kind.value, parameters.source)
    await fetch_referenced_images(source)
    return await plan_tarball(parameters.archive)


async def _write(work: ExportRun, parameters: RelocateParameters) -> None:
    """Group by group, for each has several parts in memory; or all at once, by the fleet."""
    plan, location = work.archive_planned, parameters.archive
    tarball = parameters.tarball or TarballOptions()
    groups = plan.groups(tarball.groups)
    key = artifact_key("progress", location)
    described = f"{show_size(plan.size)}: {plan.source} → {location}"
    async with percent_shown(key, described, lambda: round(percent(work.bytes_stored, plan.size), 1)):
        if tarball.deployment:
            upload = (plan.fingerprint, work.tickets)
            sent = partial(PartsParameters.sent, parameters, work.relocation.request, *upload, part=1 / len(groups))
            await write_on_fleet(work, location, groups, Fleet(deployment=tarball.deployment), sent)
            return
        for group in groups:
            await write_here(work, group)


@flow(name="write-archive-parts", persist_result=False)
@flat
async def write_archive_parts(parameters: PartsParameters) -> None:
    """Writes a group of parts into the upload that another run has begun, after coming to the same plan by itself.

    May be repeated: what is in place isn't written again.
    """
    work = parameters.run()
    key = artifact_key("parts", parameters.relocation.archive)
    TokenBucket.lend(work, 1 - parameters.part)
    async with running(work, heartbeats(key, lambda: PartsAccount.of(work))):
        return await or_failed(_write_group(parameters))


async def _write_group(parameters: PartsParameters) -> None:
    await _plan_out(parameters.relocation)
    await write_tarball(parameters.relocation.archive, parameters.volume, list(parameters.parts))
