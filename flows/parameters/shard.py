"""The parameters of runs that other runs start: a part of a relocation, a group of parts of an archive."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from flows.parameters.registry import S3StoreName, side
from flows.parameters.relocate import (
    Concurrency,
    DestinationCredentials,
    DestinationRegistry,
    RelocateParameters,
    SourceCredentials,
    SourceRegistry,
)
from oci.export.plan import Group
from oci.options import Options, option
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.relocation.plan import Plan
from oci.relocation.request import RelocationRequest
from tasks.archive import ExportOrder
from tasks.relocate import RelocationOrder


class ShardParameters(Options, frozen=True, kw_only=True):
    """A part of a relocation. Such runs are started by the run that has the whole plan."""

    plan: Annotated[dict[str, Any], option("Plan", "The images to copy, with everything below them.")]
    source_credentials: SourceCredentials = ()
    destination_credentials: DestinationCredentials = ()
    concurrency: Concurrency = DEFAULT_CONCURRENCY
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

    def order(self) -> RelocationOrder:
        return RelocationOrder(
            plan=self.shard(),
            source=side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store),
            destination=side(self.destination_registry, self.destination_credentials, self.concurrency),
            concurrency=self.concurrency,
        )


class PartsParameters(Options, frozen=True, kw_only=True):
    """A group of parts of an archive. Such runs are started by the run that has begun the archive."""

    relocation: Annotated[
        RelocateParameters, option("Relocation", "The relocation into the archive, its source pinned by digest.")
    ]
    fingerprint: Annotated[
        str, option("Fingerprint", "Fingerprint of the plan: this run must make the same plan.", max_length=64)
    ]
    tickets: Annotated[
        tuple[str, ...], option("Tickets", "Tickets of the upload, one for each volume.", max_length=10_000)
    ]
    volume: Annotated[int, option("Volume", "Number of the volume, from 0.", ge=0, le=10_000)]
    parts: Annotated[
        tuple[int, ...], option("Parts", "The numbers of the parts to write.", min_length=1, max_length=10_000)
    ]

    @classmethod
    def sent(
        cls,
        whole: RelocateParameters,
        request: RelocationRequest,
        fingerprint: str,
        tickets: tuple[str, ...],
        group: Group,
    ) -> dict[str, Any]:
        """Returns the parameters of the flow run that is to write `group`; `request` is the pinned one."""
        how = msgspec.structs.replace(whole.how, tags=request.tags)
        source = request.bundle or request.image or whole.source
        pinned = msgspec.structs.replace(whole, source=source, how=how)
        numbers = tuple(group.numbers)
        return cls(
            relocation=pinned, fingerprint=fingerprint, tickets=tickets, volume=group.volume, parts=numbers
        ).to_dict()

    def order(self) -> ExportOrder:
        asked = self.relocation.export_order()
        return ExportOrder(order=asked.order, options=asked.options, fingerprint=self.fingerprint, tickets=self.tickets)
