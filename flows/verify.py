"""Verifying images, bundles and whole repositories, on a schedule of its own."""

from __future__ import annotations

import asyncio
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.names import short
from flows.parameters.forms import flat
from flows.parameters.verify import VerifyParameters
from flows.results import completed, failed, run_alone
from oci.errors import Incomplete, StoreError, TransshipError
from oci.reference import parse_any
from oci.relocation.report import VerificationReport
from tasks.access import OneSided
from tasks.run import running
from tasks.verify import report_verification, verify_place


def run_name() -> str:
    """`verify shop 1.4.0`, `verify registry.corp.example/mirror/shop deep`, `verify images.lock.yml and 2 more`"""
    parameters = VerifyParameters.read(flow_run.parameters)
    what = [
        *(short(parse_any(one)) for one in parameters.references),
        *parameters.repositories,
        *(path.rpartition("/")[2] for path in parameters.locks),
    ]
    more = f" and {len(what) - 1} more" if len(what) > 1 else ""
    return f"verify {what[0]}{more}{' deep' if parameters.deep else ''}"


@flow(name="verify", flow_run_name=run_name, persist_result=False)
@flat
async def verify(parameters: VerifyParameters) -> VerificationReport:
    """Walks down from what is named, and asks for every blob, or with `deep` reads and hashes every byte.

    A relocation takes what a destination has by digest to be whole; a deep verification now and then proves that.
    Raises Incomplete when something is missing or wrong, after the report was written, and any other TransshipError
    when a place could not be looked at.
    """
    async with running(OneSided(parameters.side(), "destination")):
        try:
            wanted = await asyncio.to_thread(parameters.places)
            places = [await verify_place(str(name), list(ids), deep=parameters.deep) for name, ids in wanted.items()]
            report = await report_verification(places, deep=parameters.deep)
        except TransshipError as error:
            return cast(VerificationReport, failed(error))
    return completed(report) if report.complete else cast(VerificationReport, failed(_incomplete(report)))


def _incomplete(report: VerificationReport) -> Incomplete:
    return Incomplete(
        str(report),
        [StoreError(problem) for problem in report.problems],
        hint="relocate again with `repair`: what was lost is sent again",
    )


def verify_sync(parameters: VerifyParameters) -> VerificationReport:
    """`verify` for programs without an event loop. Raises InvalidInput where one runs: await `verify` there."""
    return run_alone(verify, parameters)
