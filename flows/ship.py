"""The whole way over an object store: an archive is written on one side and imported on the other."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import or_failed, run_alone
from flows.export import export
from flows.import_archive import import_archive
from flows.names import host_or_folder, short_source
from flows.parameters.archive import ShipParameters
from flows.parameters.relocate import SourceKind
from oci.reference import parse_store
from tasks.relocation_report import RelocationReport


def run_name() -> str:
    """`shop-bundle 1.4.0 -> registry.corp.example`"""
    parameters = ShipParameters.model_validate(flow_run.parameters["parameters"])
    source = short_source(parameters.export.source, is_file=parameters.export.kind is SourceKind.LOCK)
    return f"{source} -> {host_or_folder(parse_store(parameters.destination))}"


@flow(name="ship", flow_run_name=run_name)
async def ship(parameters: ShipParameters) -> RelocationReport:
    """Exports, then imports what was exported. Raises what the two raise; the archive stays where it is."""
    return await or_failed(_ship(parameters))


async def _ship(parameters: ShipParameters) -> RelocationReport:
    written = await export(parameters.export)
    return await import_archive(parameters.arriving(written.archive))


def ship_sync(parameters: ShipParameters) -> RelocationReport:
    """`ship` for programs without an event loop. Raises InvalidInput where one runs: await `ship` there."""
    return run_alone(ship, parameters)
