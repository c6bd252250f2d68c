"""A part of a relocation, carried out for the run that has planned all of it."""

from __future__ import annotations

from typing import cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.parameters.shard import ShardParameters
from flows.transfer import push_all, the_one
from oci.relocation.transfer import FAILED, ImageOutcome
from tasks.account import account_kept
from tasks.progress import progress_shown
from tasks.report import artifact_key
from tasks.shards import ShardAccount
from tasks.take_up import take_up
from tasks.transfer import opened_transfer


@flow(name="relocate-shard")
async def relocate_shard(parameters: ShardParameters) -> None:
    """Copies the images of a shard, and names none of them: that is for the run that knows all the shards.

    What became of each is told by an artifact of the kind `account`, while the run goes on and when it has ended. The
    run fails when an image did; it can be retried, and does again only what the destination lacks.
    """
    async with opened_transfer(parameters.transfer()) as transfer:
        transfer.plan = parameters.shard()
        destination = str(transfer.plan.destination)
        try:
            async with account_kept(artifact_key("shard", destination), lambda: ShardAccount.of(transfer)):
                await take_up(destination, ask=bool(flow_run.run_count > 1))
                async with progress_shown(transfer, f"a shard of {transfer.plan.source}", kind="shard-progress"):
                    await push_all(transfer, transfer.planned)
        except BaseExceptionGroup as group_of_errors:
            raise the_one(group_of_errors) from None
    return cast(None, _failed(list(transfer.outcomes.values())))


def _failed(outcomes: list[ImageOutcome]) -> State[None] | None:
    """The state of a run in which images failed. Returned, as an error that is raised fills the log."""
    failed = [one for one in outcomes if one.status == FAILED]
    if not failed:
        return None
    first = f"{failed[0].subject}: {failed[0].error}"
    return Failed(message=f"{len(failed)} of {len(outcomes)} images failed, the first: {first}")
