"""Showing what a bundle holds."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.names import short
from flows.parameters.describe import DescribeParameters
from flows.parameters.forms import flat
from flows.parameters.registry import archive_name
from flows.results import or_failed, run_alone
from oci.bundle.results import DescribeReport
from oci.units import counted
from tasks.access import OneSided
from tasks.inspect import describe_bundle
from tasks.run import running


def run_name() -> str:
    """`describe shop-bundle 1.4.0`"""
    return f"describe {short(DescribeParameters.read(flow_run.parameters).reference())}"


@flow(name="describe", flow_run_name=run_name, persist_result=False)
@flat
async def describe(parameters: DescribeParameters) -> DescribeReport:
    """Reads a bundle and everything it lists. Raises a TransshipError when it is none, or when a part can't be read."""
    async with running(OneSided(parameters.side(), "")):
        reference = str(parameters.reference())
        work = describe_bundle(
            reference,
            archive_name(parameters.archive),
            layers=parameters.layers,
            signatures=parameters.cosign_artifacts,
        )
        return await or_failed(work, lambda report: f"{report.image}: {counted(len(report.contents), 'entry')}")


def describe_sync(parameters: DescribeParameters) -> DescribeReport:
    """`describe` for programs without an event loop. Raises InvalidInput where one runs: await `describe` there."""
    return run_alone(describe, parameters)
