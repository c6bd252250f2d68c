"""Transferring the images of a plan as tasks, alone or with helpers, and the flow of a helper."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.parameters.forms import flat
from flows.parameters.relocate import RelocateParameters
from flows.parameters.shard import ShardParameters
from oci.digest import Digest
from oci.errors import TransshipError
from oci.relocation.plan import Plan
from oci.relocation.shards import part_of
from oci.relocation.transfer import FAILED, ImageOutcome
from tasks.artifacts.report import artifact_key
from tasks.fleet.heartbeat import heartbeats
from tasks.fleet.spread import Helpers, Spread
from tasks.fleet.taker import Taker
from tasks.relocate import RelocationRun, batches, biggest_first, names_of, push_to_target_registry
from tasks.run import TASK_RUN_LIMIT, running, together
from tasks.shards import RelocationWork, open_shard, result_of, stays_here


async def push_all(run: RelocationRun, plan: Plan) -> None:
    """Transfers the images of `plan`, all or some of the run's own, some at a time. One that fails doesn't stop the
    others: its outcome is kept in the run."""
    places = asyncio.Semaphore(run.width)

    async def push(images: list[str]) -> None:
        async with places:
            try:
                await push_to_target_registry(images, str(plan.destination))
            except TransshipError:
                return

    await together(*(push(images) for images in batches(plan)))


async def push_shared(run: RelocationRun, parameters: RelocateParameters, helpers: Helpers) -> None:
    """Transfers the images of the run's plan, with helpers where that is faster; what only this run may write comes
    last."""
    plan = run.planned
    run.fleet = stays_here(plan)
    if run.fleet or not plan.to_transfer:
        await push_all(run, plan)
        return
    images_together = max(1, -(-len(plan.to_transfer) // TASK_RUN_LIMIT))
    sent = partial(ShardParameters.sent, parameters, images_together)
    session = await run.session()
    work = RelocationWork(run, session, sent, trusting=not parameters.how.repair)
    spread = Spread(str(plan.destination), work, helpers)
    images = [digest for digest in biggest_first(plan) if not plan.by_digest[digest].is_bundle]
    try:
        await together(spread.carry_out(images, partial(_push, run), width=run.width, images_together=images_together))
    finally:
        run.fleet = spread.decision.reason
    await push_all(run, part_of(plan, [image for image in plan.to_transfer if image.is_bundle]))


async def _push(run: RelocationRun, images: list[Digest]) -> None:
    with suppress(TransshipError):  # the outcome is kept in the run
        await push_to_target_registry(names_of(run.planned, images), str(run.planned.destination))


@flow(name="relocate-shard", persist_result=False)
@flat
async def relocate_shard(parameters: ShardParameters) -> None:
    """Helps with a relocation: takes shards of its images from the queue until there are none, and names none of them,
    which is for the run that knows all of it.

    What became of each shard stands in the queue. The run fails when an image did.
    """
    key = artifact_key("shard", parameters.destination)
    async with (
        running(RelocationRun(parameters.order()), heartbeats(key, dict)) as run,
        parameters.queue.opened() as queue,
    ):
        opened = partial(open_shard, run, ask=bool(flow_run.run_count > 1))
        taker = Taker(queue, opened, partial(result_of, run))
        do, images = partial(_push, run), parameters.images_together
        await together(taker.carry_out(do, width=lambda: run.width, images_together=images))
    return cast("None", _failed(list(run.outcomes.values())))


def _failed(outcomes: list[ImageOutcome]) -> State[None] | None:
    """Returns the state of a run in which images failed: an error that is raised would fill the log."""
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    if not failed:
        return None
    first = f"{failed[0].subject}: {failed[0].error}"
    return Failed(message=f"{len(failed)} of {len(outcomes)} images failed, the first: {first}")
