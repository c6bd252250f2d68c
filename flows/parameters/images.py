"""The parameters of flows on single bundles, images and repositories: push, pull, describe, tags, verify."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec

from flows.parameters.forms import (
    ArchiveLocations,
    Concurrency,
    Credentials,
    OneSide,
    OutputPath,
    Registry,
    S3StoreName,
    ShortText,
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
from oci.reference import Reference, parse_any, parse_store
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions


class PushParameters(OneSide, Options, frozen=True, kw_only=True):
    """Push files of the worker as a bundle or as a plain image. The same files give the same digest everywhere."""

    destination: Annotated[
        ShortText,
        option(
            "Destination",
            "Such as registry.example/shop/config:1.4.0, or oci:PATH:TAG for a layout folder. Without a tag: latest.",
            examples=["registry.example/shop/config:1.4.0"],
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
        OutputPath,
        option(
            "Lock output",
            "File on the worker to write a BundleLock of the result to.",
            examples=["/srv/shop/bundle.lock.yml"],
        ),
    ] = ""
    to_tar: Annotated[
        OutputPath,
        option(
            "Archive",
            "Write into an archive instead of the registry: a file on the worker, or s3://BUCKET/KEY.",
            examples=["s3://archives/config.tar"],
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
        ShortText,
        option(
            "Source",
            "Such as registry.example/shop/config:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout folder; or "
            "the path of a BundleLock file.",
            examples=["registry.example/shop/config:1.4.0"],
        ),
    ]
    folder: Annotated[
        Text,
        option(
            "Folder",
            "Folder on the worker to put the files in. It is replaced as a whole, when all of them are there.",
            examples=["/srv/shop/config"],
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


class DescribeParameters(OneSide, Options, frozen=True, kw_only=True):
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""

    bundle: Annotated[
        ShortText,
        option(
            "Bundle",
            "Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST, or oci:PATH:TAG for a layout folder.",
            examples=["registry.example/shop/bundle:1.4.0"],
        ),
    ]
    archive: ArchiveLocations = ()
    layers: Annotated[bool, option("Layers", "List the layers of each image.")] = True
    cosign_artifacts: Annotated[
        bool, option("Signatures", "List cosign's signatures, which takes a request for each image.")
    ] = True
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

    s3_store: S3StoreName = ""

    def __post_init__(self) -> None:
        self.reference()
        archive_name(self.archive)

    def reference(self) -> Reference:
        return parse_any(without_scheme(self.bundle))


class TagAction(StrEnum):
    """What is asked."""

    LIST = "list"
    RESOLVE = "resolve"


class TagsParameters(OneSide, Options, frozen=True, kw_only=True):
    """List the tags of a repository, or ask which digest a tag stands for."""

    image: Annotated[
        ShortText,
        option(
            "Repository or reference",
            "Such as registry.example/shop/web to list, registry.example/shop/web:1.4.0 to resolve; or oci:PATH[:TAG] "
            "for a layout folder.",
            examples=["registry.example/shop/web"],
        ),
    ]
    action: Annotated[TagAction, option("Action", "list: all tags. resolve: the digest of a tag.")] = TagAction.LIST
    digests: Annotated[bool, option("Digests", "List each tag with its digest, which takes a request each.")] = False
    internal: Annotated[bool, option("Internal tags", "List the tags that tools make for themselves, too.")] = False
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

    def __post_init__(self) -> None:
        self.reference()

    def reference(self) -> Reference:
        return parse_any(without_scheme(self.image))


class VerifyParameters(OneSide, Options, frozen=True, kw_only=True):
    """Prove that images, bundles or whole repositories are complete: every manifest, and every blob that it lists."""

    references: Annotated[
        tuple[Text, ...],
        option(
            "References",
            "Such as registry.corp.example/mirror/shop:1.4.0, by tag or digest, or oci:PATH:TAG for a layout folder. A "
            "bundle is complete when all it lists is in its own repository.",
            examples=[["registry.corp.example/mirror/shop:1.4.0"]],
            max_length=1000,
        ),
    ] = ()
    repositories: Annotated[
        tuple[Text, ...],
        option(
            "Repositories",
            "Verify every tag in these repositories, those of signatures included.",
            examples=[["registry.corp.example/mirror/shop"]],
            max_length=100,
        ),
    ] = ()
    locks: Annotated[
        tuple[Text, ...],
        option(
            "Locks",
            "ImagesLock and BundleLock files on the worker. What they pin is verified in the repositories they name.",
            examples=[["/etc/transship/images.lock.yml"]],
            max_length=100,
        ),
    ] = ()
    deep: Annotated[
        bool,
        option("Deep", "Read and hash every byte. Off: ask for every blob by HEAD, and hash the manifests."),
    ] = False
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

    def __post_init__(self) -> None:
        if not (self.references or self.repositories or self.locks):
            raise InvalidInput("name a reference, a repository or a lock")
        for reference in self.references:
            parse_any(without_scheme(reference))
        for repository in self.repositories:
            parse_store(without_scheme(repository))


class VerifyReceiptParameters(OneSide, Options, frozen=True, kw_only=True):
    """Prove that a key has signed a receipt, and that the destination is still as it says."""

    receipt: Annotated[
        Text,
        option(
            "Receipt",
            "File of a receipt on the worker, or an image that one is attached to, by tag or digest.",
            examples=["/var/lib/transship/shop.receipt.json", "registry.corp.example/mirror/shop:1.4.0"],
        ),
    ]
    keys: Annotated[
        tuple[Text, ...],
        option(
            "Public keys",
            "Files on the worker: one of them must have signed it.",
            examples=[["/etc/transship/cosign.pub"]],
            min_length=1,
            max_length=100,
        ),
    ]
    at: Annotated[
        tuple[Text, ...],
        option(
            "At",
            "Where the destination is now, if it has moved: a repository, a folder, or the files of an archive in "
            "order.",
            examples=[["/media/usb/shop.tar"]],
            max_length=1000,
        ),
    ] = ()
    deep: Annotated[bool, option("Deep", "Read and hash every blob.")] = False
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()
    s3_store: S3StoreName = ""

    def __post_init__(self) -> None:
        without_scheme(self.receipt)
        for place in self.at:
            without_scheme(place)
