"""Mirroring: compare, carry what changed, report; for each mirror."""

from __future__ import annotations

import asyncio
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.ending import failed, run_alone
from flows.names import host_or_folder
from flows.parameters.mirror import MirrorCheckParameters, MirrorParameters
from flows.transfer import the_one
from oci.errors import Cancelled, TransshipError
from oci.mirror.breaker import Breaker
from oci.mirror.compare import Care
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.facts import Facts, default_path
from oci.mirror.rules import OnFailure
from oci.mirror.run import Shared
from oci.mirror.work import WorkItem
from oci.relocation.transfer import FAILED
from tasks.mirror import batches, compare_mirror, left_out, mirror_image, report_mirror, useless
from tasks.mirror_report import MirrorIncomplete, MirrorOutcome, MirrorRunReport
from tasks.mirror_run import MirrorRun, mirroring


def run_name() -> str:
    """`shop -> registry.corp.example`; the number of tags comes in when it is known."""
    return name_of(MirrorParameters.model_validate(flow_run.parameters["parameters"]))


def name_of(parameters: MirrorCheckParameters) -> str:
    if parameters.config is None:
        return ", ".join(parameters.names) or parameters.path.rpartition("/")[2]
    chosen = parameters.config.chosen(parameters.names)
    if len(chosen) != 1:
        return f"{len(chosen)} mirrors"
    places = dict.fromkeys(host_or_folder(destination.store) for destination in chosen[0].destinations)
    return f"{chosen[0].name} -> {', '.join(places)}"


@flow(name="mirror", flow_run_name=run_name)
async def mirror(parameters: MirrorParameters) -> MirrorRunReport:
    """Copies what is missing or changed at the destinations of mirrors; what is unchanged costs no task run.

    Raises MirrorIncomplete when something failed; everything else is in place, and its `report.only` is what to run
    again. Any other TransshipError means that the mirrors couldn't be read.
    """
    try:
        config, chosen = await asyncio.to_thread(parameters.read)
    except TransshipError as error:
        return cast(MirrorRunReport, failed(error))
    care = Care(audit=parameters.audit, only=frozenset(parameters.only))
    shared = Shared(facts=Facts(default_path()), breaker=Breaker(), care=care)
    report = MirrorRunReport(mirrors=[await _mirrored(config, one, shared) for one in chosen])
    return report if report.succeeded else cast(MirrorRunReport, failed(MirrorIncomplete(report)))


async def _mirrored(config: MirrorsConfig, one: Mirror, shared: Shared) -> MirrorOutcome:
    async with mirroring(config, one, shared) as run:
        problem = ""
        try:
            await compare_mirror(one.name)
            await _carry_all(run)
        except Cancelled:
            raise
        except TransshipError as error:
            problem = str(error)
        return await report_mirror(one.name, problem)


async def _carry_all(run: MirrorRun) -> None:
    """Some images at a time. One that fails doesn't stop the others, unless the mirror says so."""
    places = asyncio.Semaphore(run.width)
    stops = run.mirror.on_failure is OnFailure.STOP

    async def carry(items: list[WorkItem]) -> None:
        async with places:
            if stops and any(outcome.status == FAILED for outcome in run.outcomes.values()):
                run.leave(items)
                return
            if all(map(useless, items)):
                for item in items:
                    await left_out(item)
                return
            destinations = list(dict.fromkeys(target.destination for item in items for target in item.targets))
            title = items[0].title if len(items) == 1 else f"{len(items)} images"
            try:
                await mirror_image(title, [item.source for item in items], destinations)
            except Cancelled:
                raise
            except TransshipError:
                return

    try:
        async with asyncio.TaskGroup() as group:
            for items in batches(run.compared.work):
                group.create_task(carry(items))
    except BaseExceptionGroup as group_of_errors:
        raise the_one(group_of_errors) from None


def mirror_sync(parameters: MirrorParameters) -> MirrorRunReport:
    """`mirror` for programs without an event loop. Raises InvalidInput where one runs: await `mirror` there."""
    return run_alone(mirror, parameters)
