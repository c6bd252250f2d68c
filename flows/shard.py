"""Transferring the images of a plan as tasks, and the flow that does so for a part of a larger relocation."""

from __future__ import annotations

import asyncio
from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.parameters.forms import flat
from flows.parameters.shard import ShardParameters
from oci.errors import TransshipError
from oci.relocation.plan import Plan
from oci.relocation.transfer import FAILED, ImageOutcome
from tasks.artifacts.report import artifact_key
from tasks.fleet.heartbeat import heartbeats
from tasks.relocate import RelocationRun, batches, progress_shown, push_to_target_registry, resume_shard
from tasks.run import running, together
from tasks.shards import ShardAccount


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


@flow(name="relocate-shard", persist_result=False)
@flat
async def relocate_shard(parameters: ShardParameters) -> None:
    """Copies the images of a shard, and names none of them: that is for the run that knows all the shards.

    What became of each stands in the heartbeat of the run, while the run goes on and when it has ended. The
    run fails when an image did; it can be retried, and does again only what the destination lacks.
    """
    async with running(RelocationRun(parameters.order())) as run:
        plan, destination = run.planned, str(run.planned.destination)
        async with heartbeats(artifact_key("shard", destination), lambda: ShardAccount.of(run)):
            await resume_shard(destination, ask=bool(flow_run.run_count > 1))
            async with progress_shown(run, f"a shard of {plan.source}", kind="shard-progress"):
                await push_all(run, run.planned)
    return cast(None, _failed(list(run.outcomes.values())))


def _failed(outcomes: list[ImageOutcome]) -> State[None] | None:
    """Returns the state of a run in which images failed: an error that is raised would fill the log."""
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    if not failed:
        return None
    first = f"{failed[0].subject}: {failed[0].error}"
    return Failed(message=f"{len(failed)} of {len(outcomes)} images failed, the first: {first}")
