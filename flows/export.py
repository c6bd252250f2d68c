"""Writing an archive: what `relocate` does into one, with a form of its own."""

from __future__ import annotations

from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import failed, or_failed, run_alone
from flows.names import short_source
from flows.parameters.archive import ExportParameters, PartsParameters
from flows.parameters.relocate import SourceKind
from flows.tarball import plan_out, write_out
from tasks.account import account_kept
from tasks.parts import PartsAccount
from tasks.report import artifact_key
from tasks.tarball import exporting, write_tarball
from tasks.tarball_report import ExportReport


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
    work, written = await write_out(parameters.relocation())
    if work.error is not None:
        return cast(ExportReport, failed(work.error))
    return written


@flow(name="write-archive-parts")
async def write_archive_parts(parameters: PartsParameters) -> None:
    """Writes a group of parts into the upload that another run has begun, after coming to the same plan by itself.

    May be repeated: what is in place isn't written again.
    """
    async with exporting(parameters.order()) as work:
        key = artifact_key("parts", parameters.relocation.archive)
        async with account_kept(key, lambda: PartsAccount.of(work)):
            return await or_failed(_write_group(parameters))


async def _write_group(parameters: PartsParameters) -> None:
    await plan_out(parameters.relocation)
    await write_tarball(parameters.relocation.archive, parameters.volume, parameters.parts)


def export_sync(parameters: ExportParameters) -> ExportReport:
    """`export` for programs without an event loop. Raises InvalidInput where one runs: await `export` there."""
    return run_alone(export, parameters)
