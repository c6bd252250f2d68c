"""Making a relocation visible, last of all."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from oci.relocation import publish as core
from tasks.relocation import current
from tasks.retries import DELAYS, RETRIES, worth_retrying


@task(
    name="publish",
    task_run_name="publish {destination}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def publish(destination: str) -> core.Published:  # noqa: ARG001 - shown in the UI
    """Writes bundles, their locations images, and then the names. Raises Incomplete, with nothing named, when an image
    of the plan isn't in place."""
    relocation = current()
    outcomes = tuple(relocation.outcomes.values())
    published = await relocation.in_thread(core.publish, await relocation.session(), relocation.planned, outcomes)
    relocation.published = published
    if published.tags:
        get_run_logger().info("tags moved: %s", ", ".join(published.tags))
    return published
