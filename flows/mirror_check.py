"""Checking mirrors: where do destinations differ from what the mirrors say?"""

from __future__ import annotations

import asyncio
from typing import cast

from msgspec.structs import replace
from prefect import flow
from prefect.runtime import flow_run

from flows.mirror import name_of, shared_in
from flows.parameters.forms import flat
from flows.parameters.mirror import MirrorCheckParameters
from flows.results import DRIFT, alone, completed, failed
from oci.errors import Incomplete, StoreError, TransshipError
from oci.mirror.comparison import CHECK
from oci.mirror.config import Mirror
from oci.mirror.results import CheckReport, Drifted, DriftReport
from tasks.mirror import MirrorRun, MirrorsRun, check_mirror
from tasks.run import running, together


def run_name() -> str:
    """`check shop -> registry.corp.example`"""
    return f"check {name_of(MirrorCheckParameters.read(flow_run.parameters))}"


@flow(name="mirror-check", flow_run_name=run_name, persist_result=False)
@flat
async def mirror_check(parameters: MirrorCheckParameters) -> CheckReport:
    """Tells which tags are missing, stale, extra, unsigned, or moved though immutable. Nothing is written.

    A run that finds drift ends in the state `Drift`, which is of the type Failed, and raises Drifted; the event
    `transship.mirror.drifted` is what automations act on. Raises Incomplete when something couldn't be compared.
    """
    try:
        chosen = await asyncio.to_thread(parameters.chosen)
    except TransshipError as error:
        return cast("CheckReport", failed(error))
    scope = replace(CHECK, only=frozenset(parameters.only))
    async with running(MirrorsRun(*chosen, shared_in(scope))) as whole:
        report = CheckReport(mirrors=await together(*(_checked(whole, each) for each in await whole.every())))
    wrong = [checked for checked in report.mirrors if not checked.complete]
    if not wrong:
        return cast("CheckReport", failed(Drifted(report), DRIFT)) if report.drifted else completed(report)
    incomplete = Incomplete(
        f"{len(wrong)} of {len(report.mirrors)} mirrors couldn't be compared in full",
        [StoreError(str(each)) for each in wrong],
        some_done=len(wrong) < len(report.mirrors),
    )
    return cast("CheckReport", failed(incomplete))


async def _checked(whole: MirrorsRun, mirror: Mirror) -> DriftReport:
    async with whole.places, running(MirrorRun(whole, mirror)):
        try:
            return await check_mirror(mirror.name)
        except TransshipError as error:
            return DriftReport(mirror=mirror.name, source=str(mirror.source), error=str(error))


mirror_check_sync = alone(mirror_check, MirrorCheckParameters)
