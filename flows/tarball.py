"""An archive being written, as tasks of this run."""

from __future__ import annotations

from functools import partial

from flows.parameters import PartsParameters, RelocateParameters, Verify
from flows.parameters.tarball import TarballOptions
from oci.export.export import write_sums
from oci.units import percent, show_size
from tasks.archive import (
    ExportRun,
    complete_tarball,
    plan_tarball,
    verify_tarball,
    write_on_fleet,
    write_tarball,
)
from tasks.progress import percent_shown
from tasks.relocate import fetch_referenced_images, resolve_bundle
from tasks.report import artifact_key


async def write_out(run: ExportRun, parameters: RelocateParameters) -> None:
    """Writes it in parts, straight to where it is to be."""
    location = parameters.archive
    if await plan_out(parameters):
        await _write(run, parameters)
        await complete_tarball(location)
    if parameters.tarball and parameters.tarball.sha256sums:
        await run.in_thread(write_sums, await run.session(), run.archive_planned.locations, location)
    if parameters.verify is not Verify.NONE:
        await verify_tarball(location, deep=parameters.verify is Verify.DEEP)


async def plan_out(parameters: RelocateParameters) -> bool:
    """Whether there is anything to write."""
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
            sent = partial(PartsParameters.sent, parameters, work.asked, plan.seal, work.tickets)
            await write_on_fleet(work, location, groups, tarball.fleet(), sent)
            return
        for group in groups:
            await write_tarball(plan.volumes[group.volume].location, group.volume, list(group.numbers))
