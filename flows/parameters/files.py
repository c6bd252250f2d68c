"""The parameters of pushing and pulling files."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from flows.parameters.registry import (
    ArchiveLocations,
    Concurrency,
    Credentials,
    OneSide,
    Registry,
    S3StoreName,
    Text,
    archive_location,
    archive_name,
    without_scheme,
)
from oci.bundle.pull import PullRequest
from oci.bundle.push import PushRequest
from oci.errors import InvalidInput
from oci.files.decompress import UnpackLimits
from oci.files.walk import DEFAULT_EXCLUSIONS
from oci.options import Options, option
from oci.reference import parse_any
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions


class PushParameters(OneSide, Options, frozen=True, kw_only=True):
    """Push files of the worker as a bundle or as a plain image. The same files give the same digest everywhere."""

    destination: Annotated[
        str,
        option(
            "Destination",
            "Such as registry.example/shop/config:1.4.0, or oci:PATH:TAG for a layout folder. Without a tag: latest.",
            examples=["registry.example/shop/config:1.4.0"],
            min_length=1,
            max_length=2000,
        ),
    ]
    files: Annotated[
        tuple[Text, ...],
        option(
            "Files",
            "Files and folders on the worker; all of them become one layer.",
            examples=[["/srv/shop/bundle"]],
            max_length=1000,
        ),
    ]
    bundle: Annotated[
        bool,
        option(
            "As a bundle", "Push a bundle: one of the folders must contain .imgpkg/images.yml. Off: push a plain image."
        ),
    ] = True
    tags: Annotated[
        tuple[Text, ...],
        option(
            "More tags",
            "Tags that the result gets besides the tag of the destination.",
            flag="--to-tag",
            max_length=100,
        ),
    ] = ()
    exclusions: Annotated[
        tuple[Text, ...],
        option("Exclusions", "Whole paths inside the image to leave out, with what is below them.", max_length=1000),
    ] = DEFAULT_EXCLUSIONS
    labels: Annotated[
        dict[str, str], option("Labels", "Labels of the image's config, as an object of texts.", max_length=200)
    ] = msgspec.field(default_factory=dict)
    preserve_permissions: Annotated[
        bool, option("Preserve permissions", "Keep the permissions of group and others, too.")
    ] = False
    oci_media_types: Annotated[
        bool,
        option("OCI media types", "Instead of Docker's. The program imgpkg can pull such a bundle, but not copy it."),
    ] = False
    lock_output: Annotated[
        str,
        option(
            "Lock output",
            "File on the worker to write a BundleLock of the result to.",
            examples=["/srv/shop/bundle.lock.yml"],
            max_length=4096,
        ),
    ] = ""
    to_tar: Annotated[
        str,
        option(
            "Archive",
            "Write into an archive instead of the registry: a file on the worker, or s3://BUCKET/KEY.",
            examples=["s3://archives/config.tar"],
            max_length=4096,
        ),
    ] = ""
    s3_store: S3StoreName = ""
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

    def __post_init__(self) -> None:
        place = self.request().destination
        if self.lock_output and not self.bundle:
            raise InvalidInput("only a bundle has a lock")
        if self.lock_output and (not place.repository.registry or self.to_tar):
            raise InvalidInput("a lock names registries only, not an image-layout folder or an archive")
        if self.to_tar:
            archive_location(self.to_tar)
            if self.tags:
                raise InvalidInput("an image in an archive has the tag of its destination: leave out tags")

    def request(self) -> PushRequest:
        destination = without_scheme(self.destination)
        return PushRequest(
            bundle=destination if self.bundle else "",
            image="" if self.bundle else destination,
            tags=self.tags,
            files=self.files,
            exclusions=self.exclusions,
            preserve_permissions=self.preserve_permissions,
            labels=self.labels,
            oci_types=self.oci_media_types,
        )


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
            "bundle: the lock in the folder names where the images are now. lock: a BundleLock file on the worker.",
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

    def request(self) -> PullRequest:
        named: dict[str, Any] = {self.kind: self.source}
        return PullRequest(
            **named, recursive=self.recursive, image_is_bundle_check=self.image_is_bundle_check, limits=self.limits
        )
