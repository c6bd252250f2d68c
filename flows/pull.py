"""Pulling the files of a bundle or an image."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.names import short_source
from flows.parameters.forms import flat
from flows.parameters.pull import PullParameters
from flows.parameters.registry import archive_name
from flows.results import or_failed, run_alone
from oci.bundle.results import PullReport
from tasks.access import OneSided
from tasks.files import pull_files
from tasks.run import running


def run_name() -> str:
    """`pull config 1.4.0 -> /srv/config`"""
    parameters = PullParameters.read(flow_run.parameters)
    source = short_source(parameters.source, is_file=parameters.kind == "lock")
    return f"pull {source} -> {parameters.folder}"


@flow(name="pull", flow_run_name=run_name, persist_result=False)
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


def pull_sync(parameters: PullParameters) -> PullReport:
    """`pull` for programs without an event loop. Raises InvalidInput where one runs: await `pull` there."""
    return run_alone(pull, parameters)
