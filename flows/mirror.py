"""Mirroring: compare, carry what changed, report; for each mirror. A helper carries some of it for another run. And
checking mirrors: where do destinations differ from what the mirrors say?"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from functools import partial
from typing import Any, cast

from prefect import flow
from prefect.states import Failed

from flows.parameters.forms import FleetOptions, QueueName, ShortText, alone, flat, named
from oci.errors import Incomplete, InvalidInput, StoreError, TransshipError
from oci.mirror.comparison import Comparison, WorkItem
from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.execute import unaccounted
from oci.mirror.policy import OnFailure
from oci.mirror.results import CheckReport, Drifted, DriftReport, MirrorIncomplete, MirrorReport, MirrorRunReport
from oci.mirror.run_state import DigestCache, Shared, default_path
from oci.options import Options, option, required
from oci.relocation.transfer import DONE, FAILED
from oci.signatures.artifacts import MirrorReceipts
from oci.units import counted
from tasks.artifacts.report import artifact_key, heartbeats, percent_shown
from tasks.blocks import read_mirrors
from tasks.fleet.limits import limits_of
from tasks.fleet.queue import ShardQueue, Taker
from tasks.fleet.spread import Spread
from tasks.mirror import (
    MirrorRun,
    MirrorsRun,
    check_mirror,
    compare_mirror,
    make_recorder,
    mirror_image,
    record_mirror,
    report_mirror,
)
from tasks.run import (
    DRIFT,
    cancelled,
    completed,
    errors_alone,
    failed,
    failed_images,
    reported_when_cancelled,
    running,
    some_at_a_time,
    together,
    together_in_a_task,
)
from tasks.shards import MirrorWork, items_result, stays_here, unpack_items


class MirrorCheckParameters(Options):
    """Find where the destinations of mirrors differ from what the mirrors say. Nothing is written."""

    path: str = option(
        "",
        "mirrors.yaml on the machine of the run, or variable:NAME for a variable of Prefect; or give the mirrors "
        "themselves, at the end of this form.",
        title="File of mirrors",
        examples=["/etc/transship/mirrors.yaml", "variable:mirrors"],
        max_length=2000,
    )
    names: tuple[ShortText, ...] = option(
        (), "Run these mirrors only. Empty: all of them.", examples=[["shop-web"]], max_length=1000
    )
    only: tuple[ShortText, ...] = option(
        (),
        "Look at these tags only: REGISTRY/REPOSITORY:TAG, as 'only' of a report with failures lists them. A tag that "
        "no mirror takes is ignored.",
        examples=[["registry.example/shop/web:1.4.0"]],
        max_length=10_000,
    )
    config: MirrorsConfig | None = option(
        None, "The mirrors themselves, in the form of a file of mirrors.", title="Mirrors", group="advanced"
    )

    def __post_init__(self) -> None:
        if bool(self.path) == (self.config is not None):
            raise InvalidInput("give either the file of mirrors or the mirrors themselves")
        if self.config is not None:
            self.config.chosen(self.names)

    def chosen(self) -> tuple[MirrorsConfig, tuple[Mirror, ...]]:
        """Raises InvalidDocument, InvalidInput or StoreError for a file that can't be used."""
        config = self.config or read_mirrors(self.path)
        return config, config.chosen(self.names)


class MirrorParameters(MirrorCheckParameters):
    """Copy what is missing or changed at the destinations of mirrors."""

    audit: bool = option(
        False,
        "Ask for immutable tags as well, which takes two requests each, and report when one has moved.",
        title="Audit immutable tags",
    )
    fleet: FleetOptions | None = option(
        None,
        "Spread many changed images over the workers of a work pool. None: this run carries all of them.",
        group="advanced",
    )


class MirrorShardParameters(Options):
    """Help with a mirror. Such runs are started by a run of the mirror."""

    config: MirrorsConfig = required("The mirror, and the registries that it uses.", title="Mirror")
    queue: QueueName = required("Where the shards are.")

    @classmethod
    def sent(cls, config: MirrorsConfig, mirror: Mirror, queue: ShardQueue) -> dict[str, Any]:
        """Returns the parameters of a flow run that helps with `mirror`."""
        # The run that is helped writes the receipts, with files of its own machine.
        named = mirror.with_(receipts=MirrorReceipts(), name=re.sub(r"[^a-z0-9]+", "-", mirror.name).strip("-")[:100])
        alone = config.with_(mirrors=(named,))
        return cls(config=alone, queue=QueueName.of(queue)).to_dict()


@named(MirrorParameters)
def run_name(parameters: MirrorParameters) -> str:
    """`shop -> registry.corp.example/mirror/shop`; what changed comes in when it is known."""
    return _name_of(parameters)


@named(MirrorCheckParameters)
def check_name(parameters: MirrorCheckParameters) -> str:
    """`check shop -> registry.corp.example`"""
    return f"check {_name_of(parameters)}"


def _name_of(parameters: MirrorCheckParameters) -> str:
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
        chosen = await asyncio.to_thread(parameters.chosen)
    except TransshipError as error:
        return cast("MirrorRunReport", failed(error))
    shared = Shared(facts=DigestCache(default_path()), audit=parameters.audit, only=frozenset(parameters.only))
    async with running(MirrorsRun(*chosen, shared)) as whole:
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
                    images, places = counted(len(run.compared.work), "image"), ", ".join(map(str, mirror.destinations))
                    described = f"{images}: {mirror.source} → {places}"
                    async with percent_shown(artifact_key("progress", f"mirror-{mirror.name}"), described, run.percent):
                        await _carry(parameters, run)
                if recorder is not None:
                    await record_mirror(mirror.name, recorder)
        except TransshipError as error:
            problem = str(error)
        return await report_mirror(mirror.name, problem)


async def _carry(parameters: MirrorParameters, run: MirrorRun) -> None:
    """Here, or with helpers where that is faster."""
    work, do = run.compared.work, partial(_carry_some, run)
    here = [item for item in work if item.writes_archive]
    shared = [item for item in work if not item.writes_archive]
    if parameters.fleet is None or not shared:
        await some_at_a_time(run.width, do, work)
        return
    fleet = parameters.fleet.sent_to(parameters.fleet.mirror_deployment)
    run.fleet = stays_here({pair for item in shared for pair in item.stores}, await run.session(), always=fleet.always)
    if run.fleet:
        await some_at_a_time(run.width, do, work)
        return
    sent = partial(MirrorShardParameters.sent, run.config, run.mirror)
    spread = Spread(f"mirror {run.mirror.name}", MirrorWork(run, sent), fleet)
    images_together = together_in_a_task(len(shared))
    try:
        with errors_alone():
            async with spread.opened():
                await spread.carry_out(shared, do, width=run.width, images_together=images_together)
    finally:
        run.fleet = spread.decision.reason
    await some_at_a_time(run.width, do, here)


mirror_sync = alone(mirror, MirrorParameters)


async def _carry_some(run: MirrorRun, items: list[WorkItem]) -> None:
    """What becomes of each is kept in the run. One that fails doesn't stop the others, unless the mirror says so."""
    if run.mirror.on_failure is OnFailure.STOP and any(outcome.status == FAILED for outcome in run.outcomes.values()):
        run.leave(items)
        return
    if all(run.shared.breaker.cause(item.places) is not None for item in items):
        for item in items:  # not worth a task run: a registry that each needs has been given up
            await run.carry(item)
        return
    destinations = list(dict.fromkeys(str(target.destination) for item in items for target in item.targets))
    title = items[0].title if len(items) == 1 else f"{len(items)} images"
    try:
        await mirror_image(title, [item.key for item in items], destinations)
    except TransshipError as error:
        run.fail(items, error)


@flow(name="mirror-shard", persist_result=False)
@flat
async def mirror_shard(parameters: MirrorShardParameters) -> None:
    """Helps with a mirror: takes shards of its changed images from the queue until there are none, and gives the images
    their tags.

    What became of each shard stands in the queue. The run fails when an image did.
    """
    [mirror] = parameters.config.mirrors
    whole = MirrorsRun(parameters.config, [mirror], Shared(facts=DigestCache(default_path())))
    beats = heartbeats(artifact_key("mirror-shard", mirror.name), dict)
    async with running(whole, beats), running(MirrorRun(whole, mirror)) as run, parameters.queue.opened() as queue:
        run.comparison = Comparison(mirror=mirror.name, source=str(mirror.source.store), destinations=(), work=())
        taker = Taker(queue, partial(_open, run), partial(items_result, run))
        await together(taker.carry_out(partial(_carry_some, run), width=lambda: run.width))
    outcomes = run.outcomes.values()
    if lacking := unaccounted(run.compared.work, outcomes):
        return cast("None", Failed(message=f"{len(lacking)} planned destinations of images have no outcome"))
    failures = [str(outcome.error) for outcome in outcomes if outcome.status != DONE]
    return cast("None", failed_images(failures, len(outcomes)))


async def _open(run: MirrorRun, text: str) -> list[WorkItem]:
    """Adds a shard to the run of a helper."""
    items = unpack_items(text)
    if not run.compared.work:
        await run.limit(limits_of(*(store for item in items for _, store in item.stores)))
    run.comparison = dataclasses.replace(run.compared, work=(*run.compared.work, *items))
    return items


@flow(name="mirror-check", flow_run_name=check_name, persist_result=False)
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
    facts, only = DigestCache(default_path()), frozenset(parameters.only)
    shared = Shared(facts=facts, audit=True, thorough=True, only=only)
    async with running(MirrorsRun(*chosen, shared)) as whole:
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
