"""The parameters of describing a bundle."""

from __future__ import annotations

from typing import Annotated

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
from oci.options import Options, option
from oci.reference import Reference, parse_any
from oci.registry.options import RegistryOptions
from oci.relocation.session import DEFAULT_CONCURRENCY
from tasks.access import Side


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
    layers: Annotated[bool, option("Layers", "With the layers of each image.")] = True
    cosign_artifacts: Annotated[
        bool, option("Signatures", "With cosign's signatures, which takes a request for each image.")
    ] = True
    concurrency: Concurrency = DEFAULT_CONCURRENCY
    credentials: Credentials = ()
    registry: Registry = RegistryOptions()

    s3_store: S3StoreName = ""

    def __post_init__(self) -> None:
        self.reference()
        archive_name(self.archive)

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency, self.s3_store)

    def reference(self) -> Reference:
        return parse_any(without_scheme(self.bundle))
