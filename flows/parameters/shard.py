"""The parameters of a run that carries out a part of a relocation."""

from __future__ import annotations

from typing import Annotated, Any

from flows.parameters.registry import S3StoreName, side
from flows.parameters.relocate import (
    Concurrency,
    DestinationCredentials,
    DestinationRegistry,
    RelocateParameters,
    SourceCredentials,
    SourceRegistry,
)
from oci.options import Options, option
from oci.registry.options import RegistryOptions
from oci.relocation.plan import Plan
from tasks.relocate import Order


class ShardParameters(Options, frozen=True, kw_only=True):
    """A part of a relocation. Such runs are started by the run that has the whole plan."""

    plan: Annotated[dict[str, Any], option("Plan", "The images to copy, with everything below them.")]
    source_credentials: SourceCredentials = ()
    destination_credentials: DestinationCredentials = ()
    concurrency: Concurrency = 8
    source_registry: SourceRegistry = RegistryOptions()
    destination_registry: DestinationRegistry = RegistryOptions()
    s3_store: S3StoreName = ""

    def __post_init__(self) -> None:
        self.shard()

    @classmethod
    def sent(cls, whole: RelocateParameters, shard: Plan) -> dict[str, Any]:
        """Returns the parameters of the flow run that is to carry out a shard of `whole`."""
        shared = {name: getattr(whole, name) for name in cls.__struct_fields__ if name != "plan"}
        return cls(plan=shard.to_dict(), **shared).to_dict()

    def shard(self) -> Plan:
        return Plan.from_dict(self.plan)

    def order(self) -> Order:
        return Order(
            plan=self.shard(),
            source=side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store),
            destination=side(self.destination_registry, self.destination_credentials, self.concurrency),
            concurrency=self.concurrency,
        )
