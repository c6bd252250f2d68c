"""The shards of a relocation: what a run that copies one reports, and how its parent checks that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID

from msgspec.structs import replace
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.digest import Digest
from oci.errors import StoreError
from oci.meter import Receipt
from oci.relocation.plan import Plan, PlannedManifest
from oci.relocation.shards import Cut, cut, local_stores, part_of, with_present_marked
from oci.relocation.transfer import DONE, FAILED, ImageOutcome, failure
from tasks.access import access_was_given
from tasks.fleet.dispatch import Fleet, Job, JobEnd, JobState, run_on_fleet
from tasks.fleet.heartbeat import Heartbeat
from tasks.relocate import RelocationRun

ShardParameters = Callable[[Plan], Mapping[str, Any]]
"""Makes the parameters of the flow run that is to carry a shard out."""


class ShardAccount(BaseModel):
    """What has become of the images of a shard so far, and what that has cost."""

    outcomes: list[ImageOutcome] = []
    receipt: Receipt = Receipt()

    @classmethod
    def of(cls, transfer: RelocationRun) -> dict[str, Any]:
        return {
            "outcomes": [outcome.to_dict() for outcome in transfer.outcomes.values()],
            "receipt": asdict(transfer.receipt()),
        }


def in_shards(transfer: RelocationRun, *, count: int, shard_bytes: int) -> Cut | None:
    """Returns the plan in shards, or None when it isn't worth it, or not possible: a run on another machine takes
    seconds to start and can't see the folders of this one."""
    plan = transfer.planned
    folders = local_stores(plan)
    if folders or access_was_given():
        why = f"{folders[0]} is on this machine" if folders else "the credentials are this machine's own"
        get_run_logger().info("all of it is done in this run: %s", why)
        return None
    shards = cut(plan, count=count, shard_bytes=shard_bytes)
    return shards if len(shards.shards) > 1 else None


async def transfer_on_fleet(
    transfer: RelocationRun, shards: Sequence[Plan], fleet: Fleet, parameters: ShardParameters, *, trusting: bool = True
) -> None:
    """Has the shards carried out by the fleet; what became of each image is in the transfer's outcomes then.

    What the runs report is checked: the destination is asked for every image, before a lost
    shard is sent again and at the end. Without `trusting`, an image that was there before counts for nothing.
    """
    plans = {f"{transfer.planned.destination}, shard {n} of {len(shards)}": shard for n, shard in enumerate(shards, 1)}
    remaining = dict(plans)

    def noted(run: UUID, account: Heartbeat) -> None:
        reported = ShardAccount.model_validate(account.body)
        transfer.elsewhere[str(run)] = reported.receipt
        transfer.outcomes.update({outcome.digest: outcome for outcome in reported.outcomes if outcome.status != FAILED})

    async def again(job: Job, end: JobEnd) -> Job | None:
        remaining[job.name] = await _missing(transfer, remaining[job.name], end, trusting=trusting)
        missing = remaining[job.name].to_transfer
        get_run_logger().info("%s: %d of %d images left", job.name, len(missing), len(plans[job.name].to_transfer))
        return Job(name=job.name, parameters=parameters(remaining[job.name])) if missing else None

    jobs = [Job(name=name, parameters=parameters(shard)) for name, shard in plans.items()]
    ends = await run_on_fleet(jobs, fleet, again=again, on_account=noted)
    for name, end in zip(plans, ends, strict=True):
        missing_part = await _missing(transfer, remaining[name], end, trusting=trusting)
        missing = {image.digest for image in missing_part.to_transfer}
        reported = {outcome.digest: outcome for outcome in ShardAccount.model_validate(end.account.body).outcomes}
        for image in plans[name].to_transfer:
            if image.digest in missing:
                transfer.outcomes[image.digest] = _failed(transfer.planned, image, end, reported.get(image.digest))
            else:
                transfer.outcomes.setdefault(image.digest, _present(image))


async def _missing(transfer: RelocationRun, shard: Plan, end: JobEnd, *, trusting: bool) -> Plan:
    """Returns what of a shard the destination still lacks."""
    if trusting:
        marked = await transfer.in_thread(with_present_marked, await transfer.session(), shard)
    else:
        reported = ShardAccount.model_validate(end.account.body).outcomes
        marked = _without(shard, [outcome.digest for outcome in reported if outcome.status == DONE])
    return part_of(marked, marked.to_transfer)


def _without(shard: Plan, copied: Iterable[Digest]) -> Plan:
    digests = set(copied)
    manifests = tuple(
        replace(manifest, present=manifest.present or manifest.digest in digests) for manifest in shard.manifests
    )
    return replace(shard, manifests=manifests)


def _present(image: PlannedManifest) -> ImageOutcome:
    """Returns the outcome of an image that is in place although its run sent no last report."""
    return ImageOutcome(digest=image.digest, subject=image.subject, role=image.role.value, status=DONE)


def _failed(plan: Plan, image: PlannedManifest, end: JobEnd, reported: ImageOutcome | None) -> ImageOutcome:
    if reported is not None and reported.status == FAILED:
        return reported
    if reported is not None:
        message = "was copied, as the worker says, but the destination doesn't have it"
    elif end.end is JobState.CANCELLED:
        message = "its shard was cancelled"
    else:
        message = f"its shard ended before it was copied: {end.message}"
    error = StoreError(message, side="destination", store=str(plan.destination), subject=image.digest, retryable=True)
    return failure(image, error)
