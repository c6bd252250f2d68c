"""Writing an archive: resolve, fetch, plan, write in groups of parts, complete, report."""

from __future__ import annotations

from functools import partial
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import failed, or_failed, run_alone
from flows.names import short_source
from flows.parameters.archive import ExportParameters, PartsParameters
from flows.parameters.relocate import SourceKind
from tasks.account import account_kept
from tasks.fetch import fetch_referenced_images
from tasks.parts import PartsAccount, write_on_fleet
from tasks.progress import percent_shown
from tasks.report import artifact_key
from tasks.resolve import resolve_bundle
from tasks.sizes import human, percent
from tasks.tarball import Export, complete_tarball, exporting, plan_tarball, write_tarball
from tasks.tarball_report import ExportReport, report_export


def run_name() -> str:
    """`shop-bundle 1.4.0 -> s3://archives/shop.tar`"""
    parameters = ExportParameters.model_validate(flow_run.parameters["parameters"])
    source = short_source(parameters.source, is_file=parameters.kind is SourceKind.LOCK)
    return f"{source} -> {parameters.archive}"


@flow(name="export", flow_run_name=run_name)
async def export(parameters: ExportParameters) -> ExportReport:
    """Writes an archive in parts, straight to where it is to be: nothing is staged, and nobody sees it before the end.

    Raises a TransshipError when it can't be completed; what is stored isn't sent again by a run that is retried or
    started anew. The report is written either way.
    """
    async with exporting(parameters.order()) as work:
        with work.noting_failure():
            source = await resolve_bundle(parameters.kind.value, parameters.source)
            await fetch_referenced_images(source)
            found = await plan_tarball(parameters.archive)
            if not found.unchanged:
                await _write(work, parameters)
                await complete_tarball(parameters.archive)
        written = await report_export(parameters.archive)
        if work.error is not None:
            return cast(ExportReport, failed(work.error))
        return written


async def _write(work: Export, parameters: ExportParameters) -> None:
    """Group by group, for each has several parts in memory; or all at once, by the fleet."""
    plan = work.archive_planned
    groups = plan.groups(parameters.groups)
    key = artifact_key("progress", parameters.archive)
    described = f"{human(plan.size)}: {plan.source} → {parameters.archive}"
    async with percent_shown(key, described, lambda: round(percent(work.bytes_stored, plan.size), 1)):
        if parameters.deployment:
            sent = partial(PartsParameters.sent, parameters, work.request, plan.seal, work.tickets)
            await write_on_fleet(work, parameters.archive, groups, parameters.fleet(), sent)
            return
        for group in groups:
            await write_tarball(plan.volumes[group.volume].location, group.volume, list(group.numbers))


@flow(name="write-archive-parts")
async def write_archive_parts(parameters: PartsParameters) -> None:
    """Writes a group of parts into the upload that another run has begun, after coming to the same plan by itself.

    May be repeated: what is in place isn't written again.
    """
    async with exporting(parameters.order()) as work:
        key = artifact_key("parts", parameters.export.archive)
        async with account_kept(key, lambda: PartsAccount.of(work)):
            return await or_failed(_write_group(parameters))


async def _write_group(parameters: PartsParameters) -> None:
    source = await resolve_bundle(parameters.export.kind.value, parameters.export.source)
    await fetch_referenced_images(source)
    await plan_tarball(parameters.export.archive)
    await write_tarball(parameters.export.archive, parameters.volume, parameters.parts)


def export_sync(parameters: ExportParameters) -> ExportReport:
    """`export` for programs without an event loop. Raises InvalidInput where one runs: await `export` there."""
    return run_alone(export, parameters)
