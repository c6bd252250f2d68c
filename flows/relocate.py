"""Relocating a bundle, an image, what a lock lists or an archive: resolve, fetch, push, publish, verify, report."""

from __future__ import annotations

from functools import partial
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.parameters import RelocateParameters
from flows.parameters.forms import flat
from flows.results import cancelled, completed, failed, reported_when_cancelled, run_alone
from flows.shard import pushing
from flows.tarball import write_out
from oci.errors import Incomplete
from oci.output import check_outputs, to_dict, write_json
from oci.receipts.record import Recorder
from oci.relocation.report import RelocationIncomplete, RelocationReport
from oci.relocation.request import ReceiptOptions
from oci.relocation.run import RelocationResult, Step
from tasks.archive import ExportRun
from tasks.blocks import load_signing_key
from tasks.relocate import (
    RelocationRun,
    fetch_referenced_images,
    progress_shown,
    publish,
    report,
    resolve_bundle,
    verify,
)
from tasks.run import running
from tasks.shards import can_begin, stays_here


def run_name() -> str:
    """`shop-bundle 1.4.0 -> registry.corp.example/mirror/shop`"""
    parameters = RelocateParameters.read(flow_run.parameters)
    return f"{parameters.short_source} -> {parameters.request().destination.short}"


@flow(name="relocate", flow_run_name=run_name, persist_result=False)
@flat
async def relocate(parameters: RelocateParameters) -> RelocationReport:
    """Copies images from registry to registry, every byte as it is, and names nothing until all of it has arrived. A
    source, a destination or both may be an archive.

    Raises RelocationIncomplete when images failed; the others are in place and are not sent again next time. Any other
    TransshipError is what ended the run early. Either way the report artifact and the event are written first.
    """
    export = bool(parameters.archive)
    async with running(ExportRun(parameters.export_order()) if export else RelocationRun(parameters.order())) as run:
        report_path = ""
        with run.noting_failure():
            await run.in_thread(check_outputs, parameters.report, parameters.lock_output)
            report_path = parameters.report
            recorder = await _recorder(run, parameters)
            async with reported_when_cancelled(partial(_report_cancelled, run, parameters.destination)):
                if isinstance(run, ExportRun):
                    await write_out(run, parameters, recorder)
                else:
                    await _copy(run, parameters, recorder)
            if parameters.lock_output:
                await run.write_lock(parameters.lock_output)
        written = await report(parameters.destination)
        if report_path:
            await run.in_thread(write_json, report_path, to_dict(written))
        if isinstance(run.error, Incomplete):
            run.error = RelocationIncomplete(written, run.error)
        return completed(written) if run.error is None else cast("RelocationReport", failed(run.error))


async def _report_cancelled(run: RelocationRun, destination: str) -> None:
    run.error = cancelled()
    await report.fn(destination)


async def _recorder(run: RelocationRun, parameters: RelocateParameters) -> Recorder | None:
    """Reads the key before any work; None where nothing is to be recorded."""
    if parameters.receipts == ReceiptOptions() and not parameters.signed:
        return None
    key = await load_signing_key(parameters.signing_key)
    make = partial(Recorder, verify=parameters.verify, key=key, run=str(flow_run.id or ""))
    return await run.in_thread(make, parameters.receipts, run.whole_request)


async def _copy(run: RelocationRun, parameters: RelocateParameters, recorder: Recorder | None) -> None:
    source = await resolve_bundle(parameters.kind.value, parameters.source)
    helpers = None if parameters.fleet is None else parameters.fleet.for_relocation()
    plans_first = helpers is None or recorder is not None or not can_begin(run.whole_request, await run.session())
    if plans_first:
        await fetch_referenced_images(source)
        if recorder is not None:
            recorder.check(run.planned)
        if helpers is not None:
            run.fleet = stays_here(run.planned, await run.session(), always=helpers.always)
        helpers = None if run.fleet or not run.planned.to_transfer else helpers
    async with pushing(run, parameters, helpers) as push:
        if not plans_first:
            await fetch_referenced_images(source)
        # As asked for: a digest is wider than the page.
        async with progress_shown(run, run.source.reference if run.source else run.planned.source):
            await push()
    driver = await run.driver()
    driver.check_complete()
    for step in driver.closing_steps:
        destination = parameters.destination
        await (verify(destination) if step is Step.VERIFY else publish(destination, step.value))
    if recorder is not None:
        result = RelocationResult(
            plan=run.planned,
            outcomes=tuple(run.outcomes.values()),
            verification=run.verification,
            receipt=run.receipt(),
        )
        await run.in_thread(recorder.record, driver.session, result)


def relocate_sync(parameters: RelocateParameters) -> RelocationReport:
    """`relocate` for programs without an event loop. Raises InvalidInput where one runs: await `relocate` there."""
    return run_alone(relocate, parameters)
