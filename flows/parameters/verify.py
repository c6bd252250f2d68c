"""What verifying needs to know."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import Concurrency, Credentials, StoreText, side
from oci.errors import InvalidInput
from oci.reference import StoreName, parse_any, parse_store
from oci.registry.form import RegistryForm as RegistryOptions
from oci.relocation.verify import names_by_store
from tasks.access import Side

LockPath = Annotated[str, Field(min_length=1, max_length=4096)]


class VerifyParameters(BaseModel):
    """Prove that images, bundles or whole repositories are complete: every manifest, and every blob that one lists."""

    model_config = ConfigDict(extra="forbid", title="Verification", hide_input_in_errors=True)

    references: list[StoreText] = Field(
        default=[],
        title="References",
        description="Such as registry.corp.example/mirror/shop:1.4.0, by tag or digest, or oci:PATH:TAG for a layout "
        "folder. A bundle is complete when all it lists is in its own repository.",
        examples=[["registry.corp.example/mirror/shop:1.4.0"]],
        max_length=1000,
    )
    repositories: list[StoreText] = Field(
        default=[],
        title="Repositories",
        description="Every tag in them, signatures and the like among them.",
        examples=[["registry.corp.example/mirror/shop"]],
        max_length=100,
    )
    locks: list[LockPath] = Field(
        default=[],
        title="Locks",
        description="ImagesLock and BundleLock files on the worker: what they pin, in the repositories they name.",
        examples=[["/etc/transship/images.lock.yml"]],
        max_length=100,
    )
    deep: bool = Field(
        default=False,
        title="Deep",
        description="Read and hash every byte. Off: ask for every blob by HEAD, and hash the manifests.",
    )
    concurrency: Concurrency = 8
    credentials: Credentials = []
    registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Registry", description="How the registries are reached."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if not (self.references or self.repositories or self.locks):
            raise ValueError("name a reference, a repository or a lock")
        try:
            self.references = [str(parse_any(one)) for one in self.references]
            self.repositories = [str(parse_store(one)) for one in self.repositories]
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    def places(self) -> dict[StoreName, tuple[str, ...]]:
        """Reads the locks. Raises what that raises."""
        return names_by_store(self.references, self.repositories, self.locks)

    def side(self) -> Side:
        return side(self.registry, self.credentials, self.concurrency)
