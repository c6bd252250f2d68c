"""The graph below a source: manifests, sizes, and what of it the destination lacks."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.relocation.plan import Plan
from oci.relocation.planner import make_plan
from oci.relocation.transfer import transfer_image
from oci.units import show_size
from tasks.limits import limits_of
from tasks.relocation import current
from tasks.resolution import Resolution
from tasks.retries import DELAYS, RETRIES, worth_retrying


class Graph(BaseModel):
    """The plan in numbers; the plan itself stays in the process (it can have megabytes)."""

    manifests: int
    images: int
    """Units of transfer: manifests without the children of indexes, which travel with them."""
    to_transfer: int
    blobs: int
    """Distinct blobs that may have to move, and their bytes."""
    bytes: int
    unreadable: int
    """Parts of the source that couldn't be read: each blocks the names above it."""
    unchanged: bool

    @classmethod
    def of(cls, plan: Plan) -> Graph:
        return cls(
            manifests=len(plan.manifests),
            images=sum(1 for _ in plan.images),
            to_transfer=len(plan.to_transfer),
            blobs=len(plan.blobs),
            bytes=sum(blob.size for blob in plan.blobs),
            unreadable=len(plan.failures),
            unchanged=plan.unchanged,
        )


@task(
    name="fetch referenced images",
    task_run_name="plan {source.reference}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def fetch_referenced_images(source: Resolution) -> Graph:
    """Walks everything below the source and asks the destination which of it is there.

    Never cached, not even within a flow run: a run that is retried learns here what the attempt before has done.
    """
    relocation = current()
    relocation.pin(source)
    session = await relocation.session()
    plan = await relocation.in_thread(make_plan, session, relocation.request)
    relocation.plan = plan
    relocation.outcomes = {
        image.digest: transfer_image(session, plan, image.digest) for image in plan.images if image.present
    }
    if plan.to_transfer:
        await relocation.limit(limits_of(plan.destination, *{image.store for image in plan.to_transfer}))
    graph = Graph.of(plan)
    logger = get_run_logger()
    logger.info(
        "%d images in %s, %d of them to copy: %s in %d blobs",
        graph.images,
        source.reference,
        graph.to_transfer,
        show_size(graph.bytes),
        graph.blobs,
    )
    for failure in plan.failures:
        logger.warning("can't be read: %s: %s", failure.subject, failure.message)
    return graph
