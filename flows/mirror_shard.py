"""Some of the changed images of a mirror, carried for the run that has compared all of them."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Failed

from flows.parameters.forms import flat
from flows.parameters.mirror import MirrorShardParameters
from oci.errors import TransshipError
from oci.mirror.comparison import Comparison, Shared
from oci.mirror.digest_cache import DigestCache, default_path
from oci.mirror.execute import ItemOutcome, unaccounted
from oci.mirror.policy import OnFailure
from oci.mirror.work import Breaker, WorkItem
from oci.relocation.transfer import DONE, FAILED
from tasks.artifacts.report import artifact_key
from tasks.fleet.heartbeat import heartbeats
from tasks.fleet.limits import limits_of
from tasks.fleet.taker import Taker
from tasks.mirror import MirrorRun, MirrorsRun, left_out, mirror_image, useless
from tasks.mirror_fleet import result_of, unpack
from tasks.run import running, shared_out, together


async def carry_all(run: MirrorRun, work: Sequence[WorkItem]) -> None:
    """Some images at a time. One that fails doesn't stop the others, unless the mirror says so."""
    places = asyncio.Semaphore(run.width)

    async def carry(items: list[WorkItem]) -> None:
        async with places:
            await carry_some(run, items)

    await together(*(carry(items) for items in shared_out(work)))


async def carry_some(run: MirrorRun, items: list[WorkItem]) -> None:
    """What becomes of each is kept in the run."""
    if run.mirror.on_failure is OnFailure.STOP and any(outcome.status == FAILED for outcome in run.outcomes.values()):
        run.leave(items)
        return
    if all(map(useless, items)):
        for item in items:
            await left_out(item)
        return
    destinations = list(dict.fromkeys(target.destination for item in items for target in item.targets))
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
    shared = Shared(facts=DigestCache(default_path()), breaker=Breaker())
    whole = MirrorsRun(parameters.config, [mirror], shared)
    beats = heartbeats(artifact_key("mirror-shard", mirror.name), dict)
    async with running(whole, beats), running(MirrorRun(whole, mirror)) as run, parameters.queue.opened() as queue:
        run.comparison = Comparison(mirror=mirror.name, source=str(mirror.source.store), destinations=(), work=())
        taker = Taker(queue, partial(_open, run), partial(result_of, run))
        await together(taker.carry_out(partial(carry_some, run), width=lambda: run.width))
    work = run.compared.work
    return cast("None", _failed(list(run.outcomes.values()), len(unaccounted(work, run.outcomes.values()))))


async def _open(run: MirrorRun, text: str) -> list[WorkItem]:
    """Adds a shard to the run of a helper."""
    items = unpack(text)
    if not run.compared.work:
        await run.limit(limits_of(*(store for item in items for store in item.store_names)))
    run.comparison = dataclasses.replace(run.compared, work=(*run.compared.work, *items))
    return items


def _failed(outcomes: list[ItemOutcome], unaccounted: int) -> State[None] | None:
    """The state of a run in which images failed, or have no outcome. Returned, as an error that is raised fills the
    log."""
    failed = [outcome for outcome in outcomes if outcome.status != DONE]
    if unaccounted:
        return Failed(message=f"{unaccounted} planned destinations of images have no outcome")
    if not failed:
        return None
    return Failed(message=f"{len(failed)} of {len(outcomes)} images failed, the first: {failed[0].error}")
