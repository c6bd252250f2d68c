"""The parameters of looking at what registries hold: describe, tags, verify."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from flows.parameters.registry import (
    ArchiveLocations,
    Concurrency,
    Credentials,
    OneSide,
    Registry,
    S3StoreName,
    Text,
    archive_name,
    without_scheme,
)
from oci.errors import InvalidInput
from oci.options import Options, option
from oci.reference import Reference, StoreName, parse_any, parse_store
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.relocation.verify import names_by_store


class DescribeParameters(OneSide, Options, frozen=True, kw_only=True):
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""

    bundle: Annotated[
        str,
        option(
            "Bundle",
            "Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST, or oci:PATH:TAG for a layout folder.",
            examples=["registry.example/shop/bundle:1.4.0"],
            min_length=1,
            max_length=2000,
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
        str,
        option(
            "Repository or reference",
            "Such as registry.example/shop/web to list, registry.example/shop/web:1.4.0 to resolve; or oci:PATH[:TAG] "
            "for a layout folder.",
            examples=["registry.example/shop/web"],
            min_length=1,
            max_length=2000,
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

    def places(self) -> dict[StoreName, tuple[str, ...]]:
        """Reads the locks. Raises what that raises."""
        return names_by_store(self.references, self.repositories, self.locks)


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
