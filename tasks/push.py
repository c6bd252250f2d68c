"""Bringing images to the target registry, one task run for each image that it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from oci.digest import Digest, parse_digest
from oci.errors import Incomplete, TransshipError
from oci.relocation.plan import Plan
from oci.relocation.transfer import DONE, ImageOutcome, failure, transfer_image
from oci.units import counted
from tasks.retries import DELAYS, RETRIES, worth_retrying
from tasks.transfer import Transfer, current_transfer

TASK_RUN_LIMIT = 1000
"""Task runs that one flow run makes at most: the Prefect server keeps some 19 KB and works some 7 ms for each."""


def push_name(parameters: dict[str, Any]) -> str:
    """`copy shop-web@sha256:111111111111 -> registry.corp.example/shop`, in the signs that the UI's graph can draw."""
    images: Sequence[str] = parameters["images"]
    what = counted(len(images), "image")
    if len(images) == 1:
        repository, _, digest = images[0].rpartition("@")
        what = f"{repository.rpartition('/')[2]}@{digest[:19]}"
    return f"copy {what} -> {parameters['destination']}"


@task(
    name="push to target registry",
    task_run_name=push_name,  # type: ignore[arg-type]  # Prefect takes it, but its Protocol asks for a class method
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    retry_jitter_factor=0.5,
    cache_policy=NO_CACHE,
)
async def push_to_target_registry(images: list[str], destination: str) -> list[ImageOutcome]:  # noqa: ARG001 - shown in the UI
    """Transfers images of the plan, each given as REPOSITORY@DIGEST, and names none of them.

    What became of each is kept in the transfer, failed ones included; then the first failure is raised, or an
    Incomplete of them all. `destination` is the plan's; it is a parameter so that it can be read in the UI.
    """
    transfer = current_transfer()
    failures: list[TransshipError] = []
    outcomes = []
    for image in images:
        digest = parse_digest(image.rpartition("@")[2])
        try:
            outcomes.append(await _push(transfer, digest))
        except TransshipError as error:
            transfer.outcomes[digest] = failure(transfer.planned.by_digest[digest], error)
            failures.append(error)
    if len(failures) > 1:
        raise Incomplete(f"{len(failures)} of {len(images)} images failed", failures)
    if failures:
        raise failures[0]
    return outcomes


async def _push(transfer: Transfer, digest: Digest) -> ImageOutcome:
    known = transfer.outcomes.get(digest)
    if known is not None and known.status == DONE:
        return known
    session = await transfer.session()
    async with transfer.slots.slot():
        outcome = await transfer.in_thread(transfer_image, session, transfer.planned, digest)
    transfer.outcomes[digest] = outcome
    return outcome


def batches(plan: Plan, limit: int = TASK_RUN_LIMIT) -> list[list[str]]:
    """What each task run is to push, biggest first, as `images` of `push_to_target_registry`.

    One image each, as long as `limit` task runs are enough; else the bigger half of the runs stays so and the other
    half shares all the smaller images.
    """
    images = sorted(plan.to_transfer, key=lambda image: -plan.bytes_below(image))
    references = [f"{image.store}@{image.digest}" for image in images]
    alone = len(references) if len(references) <= limit else limit // 2
    rest = references[alone:]
    shares = limit - alone
    groups = [rest[number::shares] for number in range(min(shares, len(rest)))]
    return [[reference] for reference in references[:alone]] + groups
