"""What pulling files needs to know."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import Credentials, StoreText, side
from flows.parameters.relocate import SourceKind
from oci.bundle.pull import PullRequest
from oci.errors import InvalidInput
from oci.reference import parse_any
from oci.registry.form import RegistryForm as RegistryOptions
from tasks.access import Side


class PullParameters(BaseModel):
    """Pull the files of a bundle or an image into a folder of the worker."""

    model_config = ConfigDict(extra="forbid", title="Pull", hide_input_in_errors=True)

    kind: Literal[SourceKind.BUNDLE, SourceKind.IMAGE, SourceKind.LOCK] = Field(
        default=SourceKind.BUNDLE,
        title="Kind of source",
        description="A bundle's lock is made to name where its images are now. A lock is a BundleLock on the worker.",
    )
    source: StoreText = Field(
        title="Source",
        description="Such as registry.example/shop/config:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout "
        "folder; or the path of a BundleLock file.",
        examples=["registry.example/shop/config:1.4.0"],
    )
    folder: str = Field(
        title="Folder",
        description="Folder on the worker to put the files in. It is replaced as a whole, when all of them are there.",
        examples=["/srv/shop/config"],
        min_length=1,
        max_length=4096,
    )
    recursive: bool = Field(
        default=False, title="Nested bundles", description="Pull the bundles that the bundle lists, too."
    )
    image_is_bundle_check: bool = Field(
        default=True,
        title="Refuse a bundle as an image",
        description="Off: a bundle is pulled as the plain image that it is, its lock untouched.",
    )
    replace: bool = Field(
        default=False,
        title="Replace any folder",
        description="Delete what is in the folder even when it wasn't pulled.",
    )
    credentials: Credentials = []
    registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Registry", description="How the registries are reached."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.request()
            if self.kind is not SourceKind.LOCK:
                parse_any(self.source)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    def request(self) -> PullRequest:
        source: dict[str, Any] = {self.kind.value: self.source}
        return PullRequest(
            **source,
            recursive=self.recursive,
            image_is_bundle_check=self.image_is_bundle_check,
        )

    def side(self) -> Side:
        return side(self.registry, self.credentials)
