"""Packing files of a worker into a bundle or an image, and unpacking them."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.parameters.files import PullParameters, PushParameters
from flows.parameters.forms import flat
from flows.parameters.registry import archive_name
from flows.results import alone, or_failed
from oci.bundle.results import PullReport, PushReport
from oci.reference import parse_any
from tasks.bundle import pull_files, push_files
from tasks.run import OneSided, running


def push_name() -> str:
    """`push config 1.4.0 -> registry.example`"""
    destination = PushParameters.read(flow_run.parameters).request().destination
    return f"push {destination.short} -> {destination.repository.short}"


@flow(name="push", flow_run_name=push_name, persist_result=False)
@flat
async def push(parameters: PushParameters) -> PushReport:
    """Packs files of the worker into one layer and pushes it. The same files give the same digest everywhere.

    Raises a TransshipError when they can't be packed or pushed; then the name wasn't moved.
    """
    async with running(OneSided(parameters.side(), "destination")):
        return await or_failed(_push(parameters))


async def _push(parameters: PushParameters) -> PushReport:
    lock_output, to_tar = parameters.lock_output, parameters.to_tar
    return await push_files(parameters.request(), parameters.destination, lock_output, to_tar)


push_sync = alone(push, PushParameters)


def pull_name() -> str:
    """`pull config 1.4.0 -> /srv/config`"""
    parameters = PullParameters.read(flow_run.parameters)
    is_lock = parameters.kind == "lock"
    source = parameters.source.rpartition("/")[2] if is_lock else parse_any(parameters.source).short
    return f"pull {source} -> {parameters.folder}"


@flow(name="pull", flow_run_name=pull_name, persist_result=False)
@flat
async def pull(parameters: PullParameters) -> PullReport:
    """Pulls files into a folder of the worker, which is replaced as a whole when all of them are there.

    Raises a TransshipError when they can't be had; then the folder is as it was.
    """
    async with running(OneSided(parameters.side(), "source")):
        work = pull_files(
            parameters.request(),
            parameters.source,
            parameters.folder,
            archive_name(parameters.archive),
            replace=parameters.replace,
        )
        return await or_failed(work)


pull_sync = alone(pull, PullParameters)
