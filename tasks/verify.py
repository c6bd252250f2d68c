"""Proving what a relocation has put at its destination."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from oci.errors import IntegrityError
from oci.relocation import verify as core
from oci.units import counted
from tasks.relocation import current


@task(
    name="verify",
    task_run_name="verify {destination}",
    cache_policy=NO_CACHE,
)
async def verify(destination: str, *, deep: bool = False) -> core.Verification:
    """Walks the destination: asks for every blob, or with `deep` reads and hashes every byte.

    Raises IntegrityError when something is missing or wrong; the relocation keeps the whole list. Not run again by
    itself: its requests were retried, and what is wrong by then stays so.
    """
    relocation = current()
    session = await relocation.session()
    verification = await relocation.in_thread(core.verify, session, relocation.planned, deep=deep)
    relocation.verification = verification
    if verification.problems:
        raise IntegrityError(
            f"{destination}: {counted(len(verification.problems), 'problem')}, the first: {verification.problems[0]}",
            hint="relocate again with `repair`: what was lost is sent again",
        )
    get_run_logger().info("verified %d manifests and %d blobs", verification.manifests, verification.blobs)
    return verification
