"""Showing what a bundle holds."""

from __future__ import annotations

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import or_failed, run_alone
from flows.names import short
from flows.parameters.describe import DescribeParameters
from tasks.describe import DescribeReport, describe_bundle
from tasks.visit import visiting


def run_name() -> str:
    """`describe shop-bundle 1.4.0`"""
    return f"describe {short(DescribeParameters.model_validate(flow_run.parameters['parameters']).reference())}"


@flow(name="describe", flow_run_name=run_name)
async def describe(parameters: DescribeParameters) -> DescribeReport:
    """Reads a bundle and everything it lists. Raises a TransshipError when it is none, or when a part can't be read."""
    async with visiting(parameters.side(), ""):
        reference = str(parameters.reference())
        work = describe_bundle(reference, layers=parameters.layers, signatures=parameters.cosign_artifacts)
        return await or_failed(work)


def describe_sync(parameters: DescribeParameters) -> DescribeReport:
    """`describe` for programs without an event loop. Raises InvalidInput where one runs: await `describe` there."""
    return run_alone(describe, parameters)
