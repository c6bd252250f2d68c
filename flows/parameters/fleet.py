"""Whether, and how, a run is spread over several machines."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from prefect.runtime import flow_run

from oci.options import Options, option
from tasks.fleet.dispatch import Fleet
from tasks.fleet.queue import ShardQueue
from tasks.fleet.spread import Helpers

_LOOK_EVERY = 10.0
"""Seconds: what helpers have done is seen in the queue, so that only lost ones are looked for."""
_LOOKS = 6
"""In the time after which a helper counts as lost."""
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_DEPLOYMENT = r"^[^/]+/[^/]+$"


RatePart = Annotated[float, option("Part", "What this run has of each rate that a registry is allowed.", ge=0, le=1)]


class FleetOptions(Options, frozen=True, kw_only=True):
    """Share a large run with helpers: runs that any worker may take, and that take shards of it from a queue."""

    deployment: Annotated[
        str,
        option(
            "Deployment",
            "FLOW/DEPLOYMENT of the helpers. Its work pool should not be the one of this run.",
            pattern=_DEPLOYMENT,
            max_length=400,
        ),
    ] = "relocate-shard/fleet"
    mirror_deployment: Annotated[
        str,
        option(
            "Deployment for mirrors",
            "FLOW/DEPLOYMENT of the helpers of a mirror, in the place of the one above.",
            pattern=_DEPLOYMENT,
            max_length=400,
        ),
    ] = "mirror-shard/fleet"
    helpers: Annotated[
        int,
        option(
            "Helpers",
            "Runs that may help this one. As many are started as each save some seconds, or none: the report says why.",
            ge=0,
            le=100,
        ),
    ] = 8
    always: Annotated[
        bool, option("Always", "Start all helpers at once, without asking whether that makes the run faster.")
    ] = False
    retries: Annotated[
        int,
        option(
            "Retries", "How often a lost helper is replaced, and a shard of lost ones given to others.", ge=0, le=20
        ),
    ] = 3
    lost_after_seconds: Annotated[
        int,
        option(
            "Lost after seconds",
            "A run that sends no heartbeat for this long counts as lost. A run sends one every five seconds.",
            ge=15,
            le=3600,
        ),
    ] = 90
    start_within_seconds: Annotated[
        int,
        option(
            "Start within seconds",
            "A run must start within this time after a worker has claimed it. Waiting for a worker doesn't count.",
            ge=15,
            le=86400,
        ),
    ] = 600

    def as_helpers(self, deployment: str) -> Helpers:
        fleet = Fleet(
            deployment=deployment,
            retries=self.retries,
            lost_after=self.lost_after_seconds,
            start_within=self.start_within_seconds,
            look_every=min(_LOOK_EVERY, self.lost_after_seconds / _LOOKS),
        )
        return Helpers(fleet=fleet, most=self.helpers, always=self.always)


class QueueName(Options, frozen=True, kw_only=True):
    """Where a helper takes shards from: inputs of the run that it helps."""

    run: Annotated[str, option("Run", "The flow run that is helped.", pattern=_UUID, max_length=36)]
    name: Annotated[str, option("Name", "Name of its queue.", pattern=r"^[a-z0-9-]+$", max_length=100)]
    grows: Annotated[bool, option("Grows", "More shards come while the run still plans.")] = False
    part: RatePart = 1.0

    @classmethod
    def of(cls, queue: ShardQueue) -> QueueName:
        return cls(run=str(queue.run), name=queue.name, grows=queue.grows, part=queue.part)

    def opened(self) -> ShardQueue:
        """Returns the queue for the flow run that this is called in."""
        return ShardQueue(UUID(self.run), self.name, user=str(flow_run.id), grows=self.grows, part=self.part)
