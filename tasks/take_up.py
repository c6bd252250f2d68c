"""Taking up a shard that another run has cut."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from oci.relocation.shards import asked_again
from oci.units import show_size
from tasks.limits import limits_of
from tasks.retries import DELAYS, RETRIES, worth_retrying
from tasks.transfer import current_transfer


@task(
    name="take up shard",
    task_run_name="take up shard of {destination}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def take_up(destination: str, *, ask: bool) -> None:  # noqa: ARG001 - the destination is shown in the UI
    """Makes the transfer's plan ready to be carried out. With `ask`, for a run that isn't the first to try, the
    destination is asked which images it has by now."""
    transfer = current_transfer()
    if ask:
        transfer.plan = await transfer.in_thread(asked_again, await transfer.session(), transfer.planned)
    plan = transfer.planned
    await transfer.limit(limits_of(plan.destination, *{image.store for image in plan.to_transfer}))
    get_run_logger().info("%d images to copy: %s", len(plan.to_transfer), show_size(plan.bytes_to_move))
