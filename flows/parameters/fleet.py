"""Whether, and how, a run is spread over several machines."""

from __future__ import annotations

from uuid import UUID

from prefect.runtime import flow_run

from oci.options import Options, option, required
from tasks.fleet.dispatch import Fleet
from tasks.fleet.queue import ShardQueue
from tasks.fleet.spread import Helpers

_LOOK_EVERY = 10.0
"""Seconds: what helpers have done is seen in the queue, so that only lost ones are looked for."""
_LOOKS = 6
"""In the time after which a helper counts as lost."""
_UUID = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
_DEPLOYMENT = r"^[^/]+/[^/]+$"


RATE_PART = option(1.0, "What this run has of each rate that a registry is allowed.", ge=0, le=1)


class FleetOptions(Options):
    """Share a large run with helpers: runs that any worker may take, and that take shards of it from a queue."""

    deployment: str = option(
        "relocate-shard/fleet",
        "FLOW/DEPLOYMENT of the helpers. Its work pool should not be the one of this run.",
        pattern=_DEPLOYMENT,
        max_length=400,
    )
    mirror_deployment: str = option(
        "mirror-shard/fleet",
        "FLOW/DEPLOYMENT of the helpers of a mirror, in the place of the one above.",
        title="Deployment for mirrors",
        pattern=_DEPLOYMENT,
        max_length=400,
    )
    helpers: int = option(
        8,
        "Runs that may help this one. As many are started as each save some seconds, or none: the report says why.",
        ge=0,
        le=100,
    )
    always: bool = option(False, "Start all helpers at once, without asking whether that makes the run faster.")
    retries: int = option(
        3, "How often a lost helper is replaced, and a shard of lost ones given to others.", ge=0, le=20
    )
    lost_after_seconds: int = option(
        90,
        "A run that sends no heartbeat for this long counts as lost. A run sends one every five seconds.",
        ge=15,
        le=3600,
    )
    start_within_seconds: int = option(
        600,
        "A run must start within this time after a worker has claimed it. Waiting for a worker doesn't count.",
        ge=15,
        le=86400,
    )

    def as_helpers(self, deployment: str) -> Helpers:
        fleet = Fleet(
            deployment=deployment,
            retries=self.retries,
            lost_after=self.lost_after_seconds,
            start_within=self.start_within_seconds,
            look_every=min(_LOOK_EVERY, self.lost_after_seconds / _LOOKS),
        )
        return Helpers(fleet=fleet, most=self.helpers, always=self.always)


class QueueName(Options):
    """Where a helper takes shards from: inputs of the run that it helps."""

    run: str = required("The flow run that is helped.", pattern=_UUID, max_length=36)
    name: str = required("Name of its queue.", pattern=r"^[a-z0-9-]+$", max_length=100)
    grows: bool = option(False, "More shards come while the run still plans.")
    part: float = RATE_PART

    @classmethod
    def of(cls, queue: ShardQueue) -> QueueName:
        return cls(run=str(queue.run), name=queue.name, grows=queue.grows, part=queue.part)

    def opened(self) -> ShardQueue:
        """Returns the queue for the flow run that this is called in."""
        return ShardQueue(UUID(self.run), self.name, user=str(flow_run.id), grows=self.grows, part=self.part)
