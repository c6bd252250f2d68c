"""Transferring the images of a plan as tasks, alone or with helpers, and the flow of a helper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
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
from oci.relocation.shards import Preview, part_of
from oci.relocation.transfer import FAILED, ImageOutcome
from tasks.artifacts.report import artifact_key
from tasks.fleet.heartbeat import heartbeats
from tasks.fleet.spread import Helpers, Spread
from tasks.fleet.taker import Taker
from tasks.relocate import RelocationRun, batches, biggest_first, names_of, push_to_target_registry
from tasks.run import errors_alone, running, together
from tasks.shards import RelocationWork, open_shard, result_of

_FOUND_EVERY = 1.0
"""Seconds between two looks at what planning has found."""


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


@asynccontextmanager
async def pushing(
    run: RelocationRun, parameters: RelocateParameters, helpers: Helpers | None
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Gives what transfers the images of the run's plan: with helpers where that is faster. They may begin with what
    planning finds, where that is done in the block. What only this run may write comes last."""
    if helpers is None:
        yield lambda: push_all(run, run.planned)
        return
    sent = partial(ShardParameters.sent, parameters)
    work = RelocationWork(run, await run.session(), sent, trusting=not parameters.how.repair)
    spread: Spread[Digest] = Spread(run.destination, work, helpers)
    loop = asyncio.get_running_loop()

    def offer(part: Plan, share: float) -> None:
        spread.offer(work.find(part, share), share)

    def find(part: Plan, share: float) -> None:
        loop.call_soon_threadsafe(offer, part, share)

    async def push() -> None:
        plan, do = run.planned, partial(_push, run)
        images = [digest for digest in biggest_first(plan) if not plan.by_digest[digest].is_bundle]
        await spread.carry_out(images, do, width=run.width, images_together=work.images_together)
        await push_all(run, part_of(plan, [image for image in plan.to_transfer if image.is_bundle]))

    run.on_node = Preview(run.whole_request, find, every=_FOUND_EVERY).see
    try:
        with errors_alone():
            async with spread.opened():
                yield push
    finally:
        run.fleet = spread.decision.reason


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
