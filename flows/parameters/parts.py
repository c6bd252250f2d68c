"""What a run that writes a group of parts of an archive needs to know."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.parameters.relocate import RelocateParameters
from oci.export.plan import Group
from oci.relocation.request import RelocationRequest
from tasks.archive import ExportOrder


class PartsParameters(BaseModel):
    """A group of parts of an archive. Such runs are started by the run that has begun the archive."""

    model_config = ConfigDict(extra="forbid", title="Parts of an archive", hide_input_in_errors=True)

    relocation: RelocateParameters = Field(
        title="Relocation", description="Into the archive, its source pinned by digest."
    )
    seal: str = Field(title="Seal", description="Of the plan: this run must come to the same.", max_length=64)
    tickets: list[str] = Field(title="Tickets", description="With which the upload is joined, one for each volume.")
    volume: int = Field(title="Volume", description="Counted from 0.", ge=0)
    parts: list[int] = Field(title="Parts", description="The numbers of the parts to write.", min_length=1)

    @classmethod
    def sent(
        cls, whole: RelocateParameters, request: RelocationRequest, seal: str, tickets: tuple[str, ...], group: Group
    ) -> dict[str, Any]:
        """As the flow run that is to write `group` gets them; `request` is the pinned one."""
        pinned = whole.model_copy(
            update={"source": request.bundle or request.image or whole.source, "tags": list(request.tags)}
        )
        parameters = cls(
            relocation=pinned, seal=seal, tickets=list(tickets), volume=group.volume, parts=list(group.numbers)
        )
        return {"parameters": parameters.model_dump(mode="json", exclude_defaults=True)}

    def order(self) -> ExportOrder:
        asked = self.relocation.export_order()
        return ExportOrder(order=asked.order, options=asked.options, seal=self.seal, tickets=tuple(self.tickets))
