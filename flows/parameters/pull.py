"""The parameters of pulling files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from flows.parameters.registry import (
    ArchiveLocations,
    Concurrency,
    Credentials,
    OneSide,
    Registry,
    S3StoreName,
    archive_name,
    side,
    without_scheme,
)
from oci.bundle.pull import PullRequest
from oci.files.decompress import UnpackLimits
from oci.options import Options, option
from oci.reference import parse_any
from oci.registry.options import RegistryOptions
from oci.relocation.session import DEFAULT_CONCURRENCY
from tasks.access import Side


class PullParameters(OneSide, Options, frozen=True, kw_only=True):
    """Pull the files of a bundle or an image into a folder of the worker."""

    source: Annotated[
        str,
        option(
            "Source",
            "Such as registry.example/shop/config:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout folder; or "
            "the path of a BundleLock file.",
            examples=["registry.example/shop/config:1.4.0"],
            min_length=1,
            max_length=2000,
        ),
    ]
    folder: Annotated[
        str,
        option(
            "Folder",
            "Folder on the worker to put the files in. It is replaced as a whole, when all of them are there.",
            examples=["/srv/shop/config"],
            min_length=1,
            max_length=4096,
        ),
    ]
    kind: Annotated[
        Literal["bundle", "image", "lock"],
        option(
            "Kind of source",
            "A bundle's lock is made to name where its images are now. A lock is a BundleLock on the worker.",
        ),
    ] = "bundle"
    archive: ArchiveLocations = ()
    recursive: Annotated[bool, option("Nested bundles", "Pull the bundles that the bundle lists, too.")] = False
    image_is_bundle_check: Annotated[
        bool,
        option(
            "Refuse a bundle as an image",
            "Off: a bundle is pulled as the plain image that it is, its lock untouched.",
        ),
    ] = True
    replace: Annotated[
        bool, option("Replace any folder", "Delete what is in the folder even when it wasn't pulled.")
    ] = False
    limits: Annotated[UnpackLimits, option("Limits", "Bounds of what is unpacked.", flat=True)] = UnpackLimits()
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()
    s3_store: S3StoreName = ""

    def __post_init__(self) -> None:
        self.request()
        if self.kind != "lock":
            parse_any(without_scheme(self.source))
        archive_name(self.archive)

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency, self.s3_store)

    def request(self) -> PullRequest:
        named: dict[str, Any] = {self.kind: self.source}
        return PullRequest(
            **named, recursive=self.recursive, image_is_bundle_check=self.image_is_bundle_check, limits=self.limits
        )
