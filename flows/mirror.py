"""Mirroring: compare, carry what changed, report; for each mirror."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import cast

from prefect import flow
from prefect.runtime import flow_run

from flows.mirror_shard import carry_all, carry_some
from flows.parameters.forms import flat
from flows.parameters.mirror import MirrorCheckParameters, MirrorParameters, MirrorShardParameters
from flows.results import cancelled, completed, failed, reported_when_cancelled, run_alone
from oci.errors import TransshipError
from oci.mirror.comparison import Coverage, Shared
from oci.mirror.config import Mirror
from oci.mirror.digest_cache import DigestCache, default_path
from oci.mirror.results import MirrorIncomplete, MirrorReport, MirrorRunReport
from oci.mirror.work import Breaker
from oci.units import counted
from tasks.artifacts.report import artifact_key, percent_shown
from tasks.fleet.spread import Spread
from tasks.mirror import MirrorRun, MirrorsRun, compare_mirror, make_recorder, record_mirror, report_mirror
from tasks.mirror_fleet import MirrorWork, stays_here
from tasks.run import errors_alone, running, together, together_in_a_task


def run_name() -> str:
    """`shop -> registry.corp.example/mirror/shop`; what changed comes in when it is known."""
    return name_of(MirrorParameters.read(flow_run.parameters))


def name_of(parameters: MirrorCheckParameters) -> str:
    if parameters.config is None:
        return ", ".join(parameters.names) or parameters.path.rpartition("/")[2]
    chosen = parameters.config.chosen(parameters.names)
    if len(chosen) != 1:
        return counted(len(chosen), "mirror")
    places = dict.fromkeys(str(each) if each.has_places else each.store.short for each in chosen[0].destinations)
    return f"{chosen[0].name} -> {', '.join(places)}"


@flow(name="mirror", flow_run_name=run_name, persist_result=False)
@flat
async def mirror(parameters: MirrorParameters) -> MirrorRunReport:
    """Copies what is missing or changed at the destinations of mirrors; what is unchanged costs no task run.

    Raises MirrorIncomplete when something failed; everything else is in place, and its `report.only` is what to run
    again. Any other TransshipError means that the mirrors couldn't be read.
    """
    try:
        config, chosen = await asyncio.to_thread(parameters.chosen)
    except TransshipError as error:
        return cast("MirrorRunReport", failed(error))
    scope = Coverage(audit=parameters.audit, only=frozenset(parameters.only))
    shared = Shared(facts=DigestCache(default_path()), breaker=Breaker(), scope=scope)
    async with running(MirrorsRun(config, chosen, shared)) as whole:
        report = MirrorRunReport(
            mirrors=await together(*(_mirrored(parameters, whole, each) for each in await whole.every()))
        )
    return completed(report) if report.succeeded else cast("MirrorRunReport", failed(MirrorIncomplete(report)))


async def _mirrored(parameters: MirrorParameters, whole: MirrorsRun, mirror: Mirror) -> MirrorReport:
    async with running(MirrorRun(whole, mirror)) as run:
        problem = ""
        report = partial(report_mirror.fn, mirror.name, str(cancelled()))
        try:
            async with reported_when_cancelled(report), whole.places:
                recorder = await make_recorder()
                await compare_mirror(mirror.name)
                if run.compared.work:
                    async with _progress_shown(run):
                        await _carry(parameters, run)
                if recorder is not None:
                    await record_mirror(mirror.name, recorder)
        except TransshipError as error:
            problem = str(error)
        return await report_mirror(mirror.name, problem)


async def _carry(parameters: MirrorParameters, run: MirrorRun) -> None:
    """Here, or with helpers where that is faster."""
    work = run.compared.work
    here = [item for item in work if item.writes_archive]
    shared = [item for item in work if not item.writes_archive]
    if parameters.fleet is None or not shared:
        await carry_all(run, work)
        return
    helpers = parameters.fleet.for_mirror()
    run.fleet = stays_here(shared, await run.session(), always=helpers.always)
    if run.fleet:
        await carry_all(run, work)
        return
    sent = partial(MirrorShardParameters.sent, run.config, run.mirror)
    spread = Spread(f"mirror {run.mirror.name}", MirrorWork(run, sent), helpers)
    images_together = together_in_a_task(len(shared))
    try:
        with errors_alone():
            async with spread.opened():
                do = partial(carry_some, run)
                await spread.carry_out(shared, do, width=run.width, images_together=images_together)
    finally:
        run.fleet = spread.decision.reason
    await carry_all(run, here)


def _progress_shown(run: MirrorRun) -> AbstractAsyncContextManager[None]:
    places = ", ".join(map(str, run.mirror.destinations))
    described = f"{counted(len(run.compared.work), 'image')}: {run.mirror.source} → {places}"
    return percent_shown(artifact_key("progress", f"mirror-{run.mirror.name}"), described, run.percent)


def mirror_sync(parameters: MirrorParameters) -> MirrorRunReport:
    """`mirror` for programs without an event loop. Raises InvalidInput where one runs: await `mirror` there."""
    return run_alone(mirror, parameters)
