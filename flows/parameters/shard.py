"""What a run that carries out a part of a relocation needs to know."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import BlockName, S3StoreName, side
from flows.parameters.relocate import RelocateParameters
from oci.errors import InvalidDocument
from oci.registry.form import RegistryForm as RegistryOptions
from oci.relocation.plan import Plan
from tasks.relocate import Order


class ShardParameters(BaseModel):
    """A part of a relocation. Such runs are started by the run that has the whole plan."""

    model_config = ConfigDict(extra="forbid", title="Shard", hide_input_in_errors=True)

    plan: dict[str, Any] = Field(title="Plan", description="The images to copy, with everything below them.")
    concurrency: int = Field(
        default=8, title="Concurrency", description="Images, and blobs, on their way at a time.", ge=1, le=64
    )
    source_credentials: list[BlockName] = Field(
        default=[], title="Source credentials", description="Names of Registry Credentials blocks.", max_length=16
    )
    destination_credentials: list[BlockName] = Field(
        default=[], title="Destination credentials", description="Names of Registry Credentials blocks.", max_length=16
    )
    source_registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Source registry", description="How the source's registries are reached."
    )
    destination_registry: RegistryOptions = Field(
        default_factory=RegistryOptions,
        title="Destination registry",
        description="How the destination's registry is reached.",
    )
    s3_store: S3StoreName = ""

    @model_validator(mode="after")
    def _is_a_plan(self) -> Self:
        try:
            self.shard()
        except InvalidDocument as error:
            raise ValueError(str(error)) from error
        return self

    @classmethod
    def sent(cls, whole: RelocateParameters, shard: Plan) -> dict[str, Any]:
        """As the flow run that is to carry out a shard of `whole` gets them."""
        parameters = cls(
            plan=shard.to_dict(),
            concurrency=whole.concurrency,
            source_credentials=whole.source_credentials,
            destination_credentials=whole.destination_credentials,
            source_registry=whole.source_registry,
            destination_registry=whole.destination_registry,
            s3_store=whole.s3_store,
        )
        return {"parameters": parameters.model_dump(mode="json", exclude_defaults=True)}

    def shard(self) -> Plan:
        return Plan.from_dict(self.plan)

    def order(self) -> Order:
        """The same for the tasks, which know nothing of forms."""
        return Order(
            plan=self.shard(),
            source=side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store),
            destination=side(self.destination_registry, self.destination_credentials, self.concurrency),
            concurrency=self.concurrency,
        )
