"""The parameters of a run that writes a group of parts of an archive."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from flows.parameters.relocate import RelocateParameters
from oci.export.plan import Group
from oci.options import Options, option
from oci.relocation.request import RelocationRequest
from tasks.archive import ExportOrder


class PartsParameters(Options, frozen=True, kw_only=True):
    """A group of parts of an archive. Such runs are started by the run that has begun the archive."""

    relocation: Annotated[RelocateParameters, option("Relocation", "Into the archive, its source pinned by digest.")]
    seal: Annotated[str, option("Seal", "Of the plan: this run must come to the same.", max_length=64)]
    tickets: Annotated[
        tuple[str, ...], option("Tickets", "With which the upload is joined, one for each volume.", max_length=10_000)
    ]
    volume: Annotated[int, option("Volume", "Counted from 0.", ge=0, le=10_000)]
    parts: Annotated[
        tuple[int, ...], option("Parts", "The numbers of the parts to write.", min_length=1, max_length=10_000)
    ]

    @classmethod
    def sent(
        cls, whole: RelocateParameters, request: RelocationRequest, seal: str, tickets: tuple[str, ...], group: Group
    ) -> dict[str, Any]:
        """Returns the parameters of the flow run that is to write `group`; `request` is the pinned one."""
        how = msgspec.structs.replace(whole.how, tags=request.tags)
        source = request.bundle or request.image or whole.source
        pinned = msgspec.structs.replace(whole, source=source, how=how)
        numbers = tuple(group.numbers)
        return cls(relocation=pinned, seal=seal, tickets=tickets, volume=group.volume, parts=numbers).to_dict()

    def order(self) -> ExportOrder:
        asked = self.relocation.export_order()
        return ExportOrder(order=asked.order, options=asked.options, seal=self.seal, tickets=self.tickets)
