"""Bringing an archive to a registry."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import or_failed, run_alone
from flows.names import host_or_folder
from flows.parameters.archive import ImportParameters
from flows.relocate import relocate
from oci.reference import parse_store
from tasks.relocation_report import RelocationReport


def run_name() -> str:
    """`shop.tar -> registry.corp.example`"""
    parameters = ImportParameters.model_validate(flow_run.parameters["parameters"])
    destination = host_or_folder(parse_store(parameters.destination))
    return f"{parameters.archive[0].rpartition('/')[2]} -> {destination}"


@flow(name="import", flow_run_name=run_name)
async def import_archive(parameters: ImportParameters) -> RelocationReport:
    """Relocates all that an archive has, or the images that are asked for, reading it by range. Raises what `relocate`
    raises."""
    return await or_failed(relocate(parameters.relocation()))


def import_archive_sync(parameters: ImportParameters) -> RelocationReport:
    """`import_archive` for programs without an event loop. Raises InvalidInput where one runs: await it there."""
    return run_alone(import_archive, parameters)
