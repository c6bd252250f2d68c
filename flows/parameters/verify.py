"""The parameters of verifying."""

from __future__ import annotations

from typing import Annotated

from flows.parameters.registry import Concurrency, Credentials, OneSide, Registry, Text, without_scheme
from oci.errors import InvalidInput
from oci.options import Options, option
from oci.reference import StoreName, parse_any, parse_store
from oci.registry.options import RegistryOptions
from oci.relocation.session import DEFAULT_CONCURRENCY
from oci.relocation.verify import names_by_store


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
            "Every tag in them, signatures and the like among them.",
            examples=[["registry.corp.example/mirror/shop"]],
            max_length=100,
        ),
    ] = ()
    locks: Annotated[
        tuple[Text, ...],
        option(
            "Locks",
            "ImagesLock and BundleLock files on the worker: what they pin, in the repositories they name.",
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
