"""The parameters of flows on single bundles, images and repositories: push, pull, describe, tags, verify."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, ClassVar, Literal

from flows.parameters.forms import (
    ARCHIVE,
    S3_STORE,
    OneSide,
    OutputPath,
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
from oci.files.pack import DEFAULT_EXCLUSIONS
from oci.options import option, required
from oci.reference import Reference, parse_any, parse_store


class PushParameters(OneSide):
    """Push files of the worker as a bundle or as a plain image. The same files give the same digest everywhere."""

    LAST: ClassVar = ("s3_store", "concurrency", "credentials", "registry")

    destination: ShortText = required(
        "Such as registry.example/shop/config:1.4.0, or oci:PATH:TAG for a layout folder. Without a tag: latest.",
        examples=["registry.example/shop/config:1.4.0"],
    )
    files: tuple[Text, ...] = required(
        "Files and folders on the worker; all of them become one layer.",
        examples=[["/srv/shop/bundle"]],
        max_length=1000,
    )
    bundle: bool = option(
        True,
        "Push a bundle: one of the folders must contain .imgpkg/images.yml. Off: push a plain image.",
        title="As a bundle",
    )
    tags: tuple[Text, ...] = option(
        (),
        "Tags that the result gets besides the tag of the destination.",
        title="More tags",
        flag="--to-tag",
        max_length=100,
    )
    exclusions: tuple[Text, ...] = option(
        DEFAULT_EXCLUSIONS, "Whole paths inside the image to leave out, with what is below them.", max_length=1000
    )
    labels: dict[str, str] = option({}, "Labels of the image's config, as an object of texts.", max_length=200)
    preserve_permissions: bool = option(False, "Keep the permissions of group and others, too.")
    oci_media_types: bool = option(
        False,
        "Instead of Docker's. The program imgpkg can pull such a bundle, but not copy it.",
        title="OCI media types",
    )
    lock_output: OutputPath = option(
        "", "File on the worker to write a BundleLock of the result to.", examples=["/srv/shop/bundle.lock.yml"]
    )
    to_tar: OutputPath = option(
        "",
        "Write into an archive instead of the registry: a file on the worker, or s3://BUCKET/KEY.",
        title="Archive",
        examples=["s3://archives/config.tar"],
    )
    s3_store: S3StoreName = S3_STORE

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


class PullParameters(OneSide):
    """Pull the files of a bundle or an image into a folder of the worker."""

    source: ShortText = required(
        "Such as registry.example/shop/config:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout folder; or the "
        "path of a BundleLock file.",
        examples=["registry.example/shop/config:1.4.0"],
    )
    folder: Text = required(
        "Folder on the worker to put the files in. It is replaced as a whole, when all of them are there.",
        examples=["/srv/shop/config"],
    )
    kind: Literal["bundle", "image", "lock"] = option(
        "bundle",
        "bundle: the lock in the folder names where the images are now. lock: a BundleLock file on the worker.",
        title="Kind of source",
    )
    archive: tuple[Text, ...] = ARCHIVE
    recursive: bool = option(False, "Pull the bundles that the bundle lists, too.", title="Nested bundles")
    image_is_bundle_check: bool = option(
        True,
        "Off: a bundle is pulled as the plain image that it is, its lock untouched.",
        title="Refuse a bundle as an image",
    )
    replace: bool = option(
        False, "Delete what is in the folder even when it wasn't pulled.", title="Replace any folder"
    )
    limits: UnpackLimits = option(UnpackLimits(), "Limits for the files that are unpacked.", flat=True)
    s3_store: S3StoreName = S3_STORE

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


class DescribeParameters(OneSide):
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""

    bundle: ShortText = required(
        "Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST, or oci:PATH:TAG for a layout folder.",
        examples=["registry.example/shop/bundle:1.4.0"],
    )
    archive: tuple[Text, ...] = ARCHIVE
    layers: bool = option(True, "List the layers of each image.")
    cosign_artifacts: bool = option(
        True, "List cosign's signatures, which takes a request for each image.", title="Signatures"
    )

    s3_store: S3StoreName = S3_STORE

    def __post_init__(self) -> None:
        self.reference()
        archive_name(self.archive)

    def reference(self) -> Reference:
        return parse_any(without_scheme(self.bundle))


class TagAction(StrEnum):
    """What is asked."""

    LIST = "list"
    RESOLVE = "resolve"


class TagsParameters(OneSide):
    """List the tags of a repository, or ask which digest a tag stands for."""

    image: ShortText = required(
        "Such as registry.example/shop/web to list, registry.example/shop/web:1.4.0 to resolve; or oci:PATH[:TAG] for "
        "a layout folder.",
        title="Repository or reference",
        examples=["registry.example/shop/web"],
    )
    action: TagAction = option(TagAction.LIST, "list: all tags. resolve: the digest of a tag.")
    digests: bool = option(False, "List each tag with its digest, which takes a request each.")
    internal: bool = option(False, "List the tags that tools make for themselves, too.", title="Internal tags")

    def __post_init__(self) -> None:
        self.reference()

    def reference(self) -> Reference:
        return parse_any(without_scheme(self.image))


class VerifyParameters(OneSide):
    """Prove that images, bundles or whole repositories are complete: every manifest, and every blob that it lists."""

    references: tuple[Text, ...] = option(
        (),
        "Such as registry.corp.example/mirror/shop:1.4.0, by tag or digest, or oci:PATH:TAG for a layout folder. A "
        "bundle is complete when all it lists is in its own repository.",
        examples=[["registry.corp.example/mirror/shop:1.4.0"]],
        max_length=1000,
    )
    repositories: tuple[Text, ...] = option(
        (),
        "Verify every tag in these repositories, those of signatures included.",
        examples=[["registry.corp.example/mirror/shop"]],
        max_length=100,
    )
    locks: tuple[Text, ...] = option(
        (),
        "ImagesLock and BundleLock files on the worker. What they pin is verified in the repositories they name.",
        examples=[["/etc/transship/images.lock.yml"]],
        max_length=100,
    )
    deep: bool = option(False, "Read and hash every byte. Off: ask for every blob by HEAD, and hash the manifests.")

    def __post_init__(self) -> None:
        if not (self.references or self.repositories or self.locks):
            raise InvalidInput("name a reference, a repository or a lock")
        for reference in self.references:
            parse_any(without_scheme(reference))
        for repository in self.repositories:
            parse_store(without_scheme(repository))


class VerifyReceiptParameters(OneSide):
    """Prove that a key has signed a receipt, and that the destination is still as it says."""

    receipt: Text = required(
        "File of a receipt on the worker, or an image that one is attached to, by tag or digest.",
        examples=["/var/lib/transship/shop.receipt.json", "registry.corp.example/mirror/shop:1.4.0"],
    )
    keys: tuple[Text, ...] = required(
        "Files on the worker: one of them must have signed it.",
        title="Public keys",
        examples=[["/etc/transship/cosign.pub"]],
        min_length=1,
        max_length=100,
    )
    at: tuple[Text, ...] = option(
        (),
        "Where the destination is now, if it has moved: a repository, a folder, or the files of an archive in order.",
        examples=[["/media/usb/shop.tar"]],
        max_length=1000,
    )
    deep: bool = option(False, "Read and hash every blob.")
    s3_store: S3StoreName = S3_STORE

    def __post_init__(self) -> None:
        without_scheme(self.receipt)
        for place in self.at:
            without_scheme(place)
