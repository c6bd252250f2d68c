"""Writing an archive as tasks, and the flow that writes a group of its parts for another run."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.parameters import RelocateParameters, Verify
from flows.parameters.forms import flat
from flows.parameters.relocate import TarballOptions
from flows.parameters.shard import PartsParameters
from flows.results import or_failed
from oci.export.export import seal_archive
from oci.receipts.record import Recorder
from oci.registry.http.pace import Bucket
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
from tasks.artifacts.report import artifact_key, percent_shown
from tasks.fleet.heartbeat import heartbeats
from tasks.relocate import fetch_referenced_images, resolve_bundle
from tasks.run import running


async def write_out(run: ExportRun, parameters: RelocateParameters, recorder: Recorder | None = None) -> None:
    """Writes it in parts, straight to where it is to be, then what goes beside it."""
    location = parameters.archive
    if await plan_out(parameters):
        await _write(run, parameters)
        await complete_tarball(location)
    if parameters.verify is not Verify.NONE:
        await verify_tarball(location, deep=parameters.verify is Verify.DEEP)
    seal = partial(
        seal_archive,
        sha256sums=bool(parameters.tarball and parameters.tarball.sha256sums),
        recorder=recorder,
        verification=run.verification,
    )
    await run.in_thread(seal, await run.session(), run.planned, run.archive_planned.locations, location)


async def plan_out(parameters: RelocateParameters) -> bool:
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
            sent = partial(PartsParameters.sent, parameters, work.whole_request, *upload, part=1 / len(groups))
            await write_on_fleet(work, location, groups, tarball.fleet(), sent)
            return
        for group in groups:
            await write_here(work, group)


@flow(name="write-archive-parts", persist_result=False)
@flat
async def write_archive_parts(parameters: PartsParameters) -> None:
    """Writes a group of parts into the upload that another run has begun, after coming to the same plan by itself.

    May be repeated: what is in place isn't written again.
    """
    work = ExportRun(parameters.order())
    key = artifact_key("parts", parameters.relocation.archive)
    Bucket.lend(work, 1 - parameters.part)
    async with running(work, heartbeats(key, lambda: PartsAccount.of(work))):
        return await or_failed(_write_group(parameters))


async def _write_group(parameters: PartsParameters) -> None:
    await plan_out(parameters.relocation)
    await write_tarball(parameters.relocation.archive, parameters.volume, list(parameters.parts))
