"""An archive being written, as tasks of this run."""

from __future__ import annotations

from functools import partial

from flows.parameters import PartsParameters, RelocateParameters, Verify
from flows.parameters.tarball import TarballOptions
from oci.units import percent, show_size
from tasks.fetch import fetch_referenced_images
from tasks.parts import write_on_fleet
from tasks.progress import percent_shown
from tasks.report import artifact_key
from tasks.resolve import resolve_bundle
from tasks.tarball import Export, TarballPlan, complete_tarball, exporting, plan_tarball, verify_tarball, write_tarball
from tasks.tarball_report import ExportReport, report_export


async def write_out(parameters: RelocateParameters) -> tuple[Export, ExportReport]:
    """Writes it in parts, straight to where it is to be. What went wrong is noted in both, and not raised."""
    location = parameters.archive
    async with exporting(parameters.export_order()) as work:
        with work.noting_failure():
            found = await plan_out(parameters)
            if not found.unchanged:
                await _write(work, parameters)
                await complete_tarball(location)
            if parameters.verify is not Verify.NONE:
                await verify_tarball(location, deep=parameters.verify is Verify.DEEP)
        return work, await report_export(location)


async def plan_out(parameters: RelocateParameters) -> TarballPlan:
    source = await resolve_bundle(parameters.kind.value, parameters.source)
    await fetch_referenced_images(source)
    return await plan_tarball(parameters.archive)


async def _write(work: Export, parameters: RelocateParameters) -> None:
    """Group by group, for each has several parts in memory; or all at once, by the fleet."""
    plan, location = work.archive_planned, parameters.archive
    tarball = parameters.tarball or TarballOptions()
    groups = plan.groups(tarball.groups)
    key = artifact_key("progress", location)
    described = f"{show_size(plan.size)}: {plan.source} → {location}"
    async with percent_shown(key, described, lambda: round(percent(work.bytes_stored, plan.size), 1)):
        if tarball.deployment:
            sent = partial(PartsParameters.sent, parameters, work.request, plan.seal, work.tickets)
            await write_on_fleet(work, location, groups, tarball.fleet(), sent)
            return
        for group in groups:
            await write_tarball(plan.volumes[group.volume].location, group.volume, list(group.numbers))
