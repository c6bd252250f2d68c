"""What pushing files needs to know."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import Credentials, StoreText, side
from oci.bundle.push import PushRequest
from oci.errors import InvalidInput
from oci.files.walk import DEFAULT_EXCLUSIONS
from oci.reference import LayoutFolder
from oci.registry.form import RegistryForm as RegistryOptions
from tasks.access import Side

FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


class PushParameters(BaseModel):
    """Push files of the worker as a bundle or as a plain image. The same files give the same digest everywhere."""

    model_config = ConfigDict(extra="forbid", title="Push", hide_input_in_errors=True)

    destination: StoreText = Field(
        title="Destination",
        description="Such as registry.example/shop/config:1.4.0, or oci:PATH:TAG for a layout folder. Without a tag: "
        "latest.",
        examples=["registry.example/shop/config:1.4.0"],
    )
    files: list[FilePath] = Field(
        title="Files",
        description="Files and folders on the worker; all of them become one layer.",
        examples=[["/srv/shop/bundle"]],
        max_length=1000,
    )
    bundle: bool = Field(
        default=True,
        title="As a bundle",
        description="One of the folders must hold .imgpkg/images.yml. Off: as a plain image.",
    )
    exclusions: list[FilePath] = Field(
        default=list(DEFAULT_EXCLUSIONS),
        title="Exclusions",
        description="Whole paths inside the image to leave out, with what is below them.",
        max_length=1000,
    )
    labels: dict[str, str] = Field(
        default={}, title="Labels", description="Labels of the image's config, as an object of texts.", max_length=200
    )
    preserve_permissions: bool = Field(
        default=False, title="Preserve permissions", description="Keep the permissions of group and others, too."
    )
    oci_media_types: bool = Field(
        default=False,
        title="OCI media types",
        description="Instead of Docker's. The program imgpkg can pull such a bundle, but not copy it.",
    )
    lock_output: str = Field(
        default="",
        title="Lock output",
        description="File on the worker to write a BundleLock of the result to.",
        examples=["/srv/shop/bundle.lock.yml"],
        max_length=4096,
    )
    credentials: Credentials = []
    registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Registry", description="How the registry is reached."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            place = self.request().destination
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        if self.lock_output and not self.bundle:
            raise ValueError("only a bundle has a lock")
        if self.lock_output and isinstance(place.repository, LayoutFolder):
            raise ValueError("a lock names registries only, not an image-layout folder")
        return self

    def request(self) -> PushRequest:
        return PushRequest(
            bundle=self.destination if self.bundle else "",
            image="" if self.bundle else self.destination,
            files=tuple(self.files),
            exclusions=tuple(self.exclusions),
            preserve_permissions=self.preserve_permissions,
            labels=self.labels,
            oci_types=self.oci_media_types,
        )

    def side(self) -> Side:
        return side(self.registry, self.credentials)
