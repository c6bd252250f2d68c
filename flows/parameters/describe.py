"""What describing a bundle needs to know."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import Concurrency, Credentials, StoreText, side
from oci.errors import InvalidInput
from oci.reference import Reference, parse_any
from oci.registry.form import RegistryForm as RegistryOptions
from tasks.access import Side


class DescribeParameters(BaseModel):
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""

    model_config = ConfigDict(extra="forbid", title="Describe", hide_input_in_errors=True)

    bundle: StoreText = Field(
        title="Bundle",
        description="Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST, or oci:PATH:TAG for a layout "
        "folder.",
        examples=["registry.example/shop/bundle:1.4.0"],
    )
    layers: bool = Field(default=True, title="Layers", description="With the layers of each image.")
    cosign_artifacts: bool = Field(
        default=True, title="Signatures", description="With cosign's signatures, which takes a request for each image."
    )
    concurrency: Concurrency = 8
    credentials: Credentials = []
    registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Registry", description="How the registries are reached."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.reference()
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    def reference(self) -> Reference:
        return parse_any(self.bundle)

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency)
