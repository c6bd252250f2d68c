"""The parameters of runs that other runs start: a helper, a group of parts of an archive."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from flows.parameters.fleet import QueueName, RatePart
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
from oci.relocation.request import RelocationRequest
from tasks.archive import ExportOrder
from tasks.fleet.queue import ShardQueue
from tasks.relocate import RelocationOrder


class ShardParameters(Options, frozen=True, kw_only=True):
    """Help with a relocation. Such runs are started by the run that has the whole plan."""

    queue: Annotated[QueueName, option("Queue", "Where the shards are.")]
    source: Annotated[
        str,
        option(
            "Source",
            "What the whole relocation copies. Its registry is one that the user named: it gets the login of the "
            "environment, and may be as near as it is.",
            max_length=2000,
        ),
    ]
    destination: Annotated[str, option("Destination", "Repository that the images go to.", max_length=1000)]
    images_together: Annotated[int, option("Images together", "Images in a task run.", ge=1, le=1000)] = 1
    source_credentials: SourceCredentials = ()
    destination_credentials: DestinationCredentials = ()
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    source_registry: SourceRegistry = RegistryOptions()
    destination_registry: DestinationRegistry = RegistryOptions()
    s3_store: S3StoreName = ""

    @classmethod
    def sent(cls, whole: RelocateParameters, images_together: int, queue: ShardQueue) -> dict[str, Any]:
        """Returns the parameters of a flow run that helps with `whole`."""
        of_shard = {"queue", "images_together"}
        shared = {name: getattr(whole, name) for name in cls.__struct_fields__ if name not in of_shard}
        return cls(queue=QueueName.of(queue), images_together=images_together, **shared).to_dict()

    def order(self) -> RelocationOrder:
        return RelocationOrder(
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
    part: RatePart = 1.0
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
        *,
        part: float,
    ) -> dict[str, Any]:
        """Returns the parameters of the flow run that is to write `group`; `request` is the pinned one."""
        how = msgspec.structs.replace(whole.how, tags=request.tags)
        source = request.bundle or request.image or whole.source
        pinned = msgspec.structs.replace(whole, source=source, how=how)
        numbers = tuple(group.numbers)
        return cls(
            relocation=pinned,
            fingerprint=fingerprint,
            tickets=tickets,
            volume=group.volume,
            part=part,
            parts=numbers,
        ).to_dict()

    def order(self) -> ExportOrder:
        order = self.relocation.export_order()
        return ExportOrder(order=order.order, options=order.options, fingerprint=self.fingerprint, tickets=self.tickets)
