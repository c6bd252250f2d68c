"""Whether, and how, a run is spread over several machines."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from tasks.fleet import Fleet


class FleetOptions(BaseModel):
    """Cut a large relocation into shards, each a run of its own that any worker may take."""

    model_config = ConfigDict(extra="forbid", title="Fleet")

    deployment: str = Field(
        default="relocate-shard/fleet",
        title="Deployment",
        description="FLOW/DEPLOYMENT that carries out a shard. Its work pool should not be the one of this run.",
        pattern=r"^[^/]+/[^/]+$",
        max_length=400,
    )
    mirror_deployment: str = Field(
        default="mirror-shard/fleet",
        title="Deployment for mirrors",
        description="FLOW/DEPLOYMENT that carries out a shard of a mirror, in the place of the one above.",
        pattern=r"^[^/]+/[^/]+$",
        max_length=400,
    )
    shards: int = Field(
        default=0, title="Shards", description="0 is as many as the size below asks for.", ge=0, le=1000
    )
    shard_mebibytes: int = Field(
        default=4096,
        title="MiB in a shard",
        description="Each request counts as another 0.25 MiB. What would be a single shard is done by this run itself.",
        ge=1,
        le=1_000_000,
    )
    retries: int = Field(
        default=3, title="Retries of a shard", description="How often a lost one is sent again.", ge=0, le=20
    )
    lost_after_seconds: int = Field(
        default=90,
        title="Lost after seconds",
        description="Without a sign of life; a run gives one every five seconds.",
        ge=15,
        le=3600,
    )
    start_within_seconds: int = Field(
        default=600,
        title="Start within seconds",
        description="From the moment a worker has claimed a run. Time spent waiting for a worker doesn't count.",
        ge=15,
        le=86400,
    )

    def fleet(self) -> Fleet:
        """The same for the tasks, which know nothing of forms."""
        return Fleet(
            deployment=self.deployment,
            retries=self.retries,
            lost_after=self.lost_after_seconds,
            start_within=self.start_within_seconds,
        )
