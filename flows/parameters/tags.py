"""What listing tags, or resolving one, needs to know."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import Concurrency, Credentials, StoreText, side
from oci.errors import InvalidInput
from oci.reference import Reference, parse_any
from oci.registry.form import RegistryForm as RegistryOptions
from tasks.access import Side


class TagAction(StrEnum):
    """What is asked."""

    LIST = "list"
    RESOLVE = "resolve"


class TagsParameters(BaseModel):
    """List the tags of a repository, or ask which digest a tag stands for."""

    model_config = ConfigDict(extra="forbid", title="Tags", hide_input_in_errors=True)

    image: StoreText = Field(
        title="Repository or reference",
        description="Such as registry.example/shop/web to list, registry.example/shop/web:1.4.0 to resolve; or "
        "oci:PATH[:TAG] for a layout folder.",
        examples=["registry.example/shop/web"],
    )
    action: TagAction = Field(
        default=TagAction.LIST, title="Action", description="list: all tags. resolve: the digest of one."
    )
    digests: bool = Field(
        default=False, title="Digests", description="List each tag with its digest, which takes a request each."
    )
    internal: bool = Field(
        default=False, title="Internal tags", description="List the tags that tools make for themselves, too."
    )
    concurrency: Concurrency = 8
    credentials: Credentials = []
    registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Registry", description="How the registry is reached."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.reference()
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    def reference(self) -> Reference:
        return parse_any(self.image)

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency)
