"""Whether, and how, a run is spread over several machines."""

from __future__ import annotations

from typing import Annotated

from oci.options import Options, option
from tasks.fleet.dispatch import Fleet

_DEPLOYMENT = r"^[^/]+/[^/]+$"


class FleetOptions(Options, frozen=True, kw_only=True):
    """Cut a large relocation into shards, each a run of its own that any worker may take."""

    deployment: Annotated[
        str,
        option(
            "Deployment",
            "FLOW/DEPLOYMENT that carries out a shard. Its work pool should not be the one of this run.",
            pattern=_DEPLOYMENT,
            max_length=400,
        ),
    ] = "relocate-shard/fleet"
    mirror_deployment: Annotated[
        str,
        option(
            "Deployment for mirrors",
            "FLOW/DEPLOYMENT that carries out a shard of a mirror, in the place of the one above.",
            pattern=_DEPLOYMENT,
            max_length=400,
        ),
    ] = "mirror-shard/fleet"
    shards: Annotated[int, option("Shards", "Number of shards. 0: as many as the size below gives.", ge=0, le=1000)] = 0
    shard_mebibytes: Annotated[
        int,
        option(
            "MiB in a shard",
            "Each request counts as 0.25 MiB more. This run does the work itself when it is less than two shards.",
            ge=1,
            le=1_000_000,
        ),
    ] = 4096
    retries: Annotated[int, option("Retries of a shard", "How often a lost shard is sent again.", ge=0, le=20)] = 3
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

    def fleet(self) -> Fleet:
        """Returns the same for the tasks."""
        return Fleet(
            deployment=self.deployment,
            retries=self.retries,
            lost_after=self.lost_after_seconds,
            start_within=self.start_within_seconds,
        )
