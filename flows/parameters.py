"""The parameters of the flows: one model each, so that the form in the Prefect UI explains itself.

No parameter is a secret. Prefect stores and returns parameters in clear, so credentials are named here (blocks) or
found on the worker (environment, docker config), and an address that carries a password is refused.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from oci.errors import InvalidInput
from oci.reference import parse_any
from oci.registry.settings import RegistrySettings
from oci.relocation.request import RelocationRequest
from tasks.relocation import Order, Side


class SourceKind(StrEnum):
    """What the source is."""

    BUNDLE = "bundle"
    IMAGE = "image"
    LOCK = "lock"


class Artifact(StrEnum):
    """What may travel along with an image."""

    COSIGN = "cosign"
    REFERRERS = "referrers"


class Verify(StrEnum):
    """How the result is proved."""

    NONE = "none"
    HEAD = "head"
    DEEP = "deep"


class RegistryOptions(BaseModel):
    """How the registries of one side are reached."""

    model_config = ConfigDict(extra="forbid", title="Registry options", hide_input_in_errors=True)

    anonymous: bool = Field(
        default=False,
        title="Anonymous",
        description="Without the docker config of the worker. Blocks and IMGPKG variables are used nevertheless.",
    )
    insecure: bool = Field(
        default=False,
        title="Allow plain http",
        description="Talk http to a registry that has no TLS. Always allowed for loopback addresses.",
    )
    verify_tls: bool = Field(
        default=True, title="Verify TLS certificates", description="Switch off for a test registry only."
    )
    ca_files: list[str] = Field(
        default=[],
        title="CA files",
        description="PEM files on the worker with certificate authorities to trust besides the system's.",
        examples=[["/etc/ssl/corp-ca.pem"]],
        max_length=16,
    )
    client_certificate: str = Field(
        default="", title="Client certificate", description="PEM file on the worker, for registries that ask for one."
    )
    client_key: str = Field(
        default="", title="Client key", description="PEM file on the worker with the certificate's key."
    )
    proxy: str = Field(
        default="",
        title="Proxy",
        description="http://HOST:PORT without a login; the worker's proxy environment counts when this is empty.",
        examples=["http://proxy.corp.example:3128"],
        pattern=r"^(https?://[^@\s]+)?$",
    )
    http2: bool = Field(default=False, title="HTTP/2", description="Slower for blobs; for registries that require it.")
    requests_per_second: float = Field(
        default=0.0, title="Requests per second", description="0 is as many as the registry takes.", ge=0, le=10_000
    )
    quota_reserve: int = Field(
        default=0,
        title="Docker Hub reserve",
        description="Stop before fewer pulls than this are left in the quota; 0 uses them up.",
        ge=0,
        le=100_000,
    )
    allow_private_redirects: bool = Field(
        default=False,
        title="Allow redirects to private addresses",
        description="For a registry on a public address that keeps its blobs inside your network.",
    )
    retries: int = Field(
        default=5, title="Retries of a request", description="Before it counts as failed.", ge=0, le=50
    )

    @field_validator("proxy", mode="before")
    @classmethod
    def _without_login(cls, proxy: object) -> object:
        if "@" in str(proxy):
            raise ValueError("a proxy with a login would be stored in clear: set HTTPS_PROXY on the worker instead")
        return proxy

    def settings(self, concurrency: int) -> RegistrySettings:
        return RegistrySettings(
            ca_files=tuple(self.ca_files),
            client_certificate=self.client_certificate,
            client_key=self.client_key,
            verify=self.verify_tls,
            insecure=self.insecure,
            proxy=self.proxy,
            http2=self.http2,
            concurrency=concurrency,
            requests_per_second=self.requests_per_second,
            quota_reserve=self.quota_reserve,
            allow_private_redirects=self.allow_private_redirects,
            retries=self.retries,
        )


BlockName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=200)]


class RelocateParameters(BaseModel):
    """Copy a bundle, an image or everything a lock file lists to another registry, under the same digests."""

    model_config = ConfigDict(extra="forbid", title="Relocation", hide_input_in_errors=True)

    kind: SourceKind = Field(
        default=SourceKind.BUNDLE,
        title="Kind of source",
        description="A bundle travels with all it lists, an image or index alone. A lock is a file on the worker.",
    )
    source: str = Field(
        title="Source",
        description="Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout "
        "folder; or the path of an ImagesLock or BundleLock file.",
        examples=["registry.example/shop/shop-bundle:1.4.0", "/etc/transship/images.lock.yml"],
        min_length=1,
        max_length=2000,
    )
    destination: str = Field(
        title="Destination",
        description="Such as registry.corp.example/mirror/shop, without a tag, or oci:PATH for a layout folder. All "
        "of it goes into this one.",
        examples=["registry.corp.example/mirror/shop"],
        min_length=1,
        max_length=2000,
    )
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]] = Field(
        default=[],
        title="Tags",
        description="Names at the destination. Empty: the tag that the source carries.",
        examples=[["1.4.0", "latest"]],
        max_length=100,
    )
    artifacts: list[Artifact] = Field(
        default=[],
        title="Attached artifacts",
        description="cosign: signatures, attestations and SBOMs kept under tags. referrers: whatever names an image as "
        "its subject.",
        max_length=2,
    )
    platforms: list[Annotated[str, Field(pattern=r"^[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?$")]] = Field(
        default=[],
        title="Platforms",
        description="Only these of every index, which is rewritten and gets a new digest. Empty: all.",
        examples=[["linux/amd64", "linux/arm64"]],
        max_length=50,
    )
    verify: Verify = Field(
        default=Verify.NONE,
        title="Verify the result",
        description="head: ask the destination for every blob. deep: read and hash every byte again.",
    )
    concurrency: int = Field(
        default=8, title="Concurrency", description="Images, and blobs, on their way at a time.", ge=1, le=64
    )
    repo_based_tags: bool = Field(
        default=False,
        title="Readable keep-alive tags",
        description="Tags that hold images against garbage collection show where each came from.",
    )
    include_non_distributable: bool = Field(
        default=False,
        title="Include non-distributable layers",
        description="Copy layers that their makers say must not be given on; you need their permission.",
    )
    shallow: bool = Field(
        default=False, title="Shallow", description="The bundle's own image and nothing that it lists."
    )
    names: list[str] = Field(
        default=[],
        title="Readable names",
        description="Rules [PATTERN=]TEMPLATE that give each listed image a tag, of {name}, {path}, {tag} and {short}.",
        examples=[["{name}-{short}"]],
        max_length=100,
    )
    repair: bool = Field(
        default=False,
        title="Repair",
        description="Ask the destination for every blob, and send again what it has lost.",
    )
    source_credentials: list[BlockName] = Field(
        default=[],
        title="Source credentials",
        description="Names of Registry Credentials blocks. Other registries use the worker's environment and docker "
        "config.",
        examples=[["registry-example-reader"]],
        max_length=16,
    )
    destination_credentials: list[BlockName] = Field(
        default=[],
        title="Destination credentials",
        description="Names of Registry Credentials blocks.",
        examples=[["corp-mirror-writer"]],
        max_length=16,
    )
    source_registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Source registry", description="How the source's registries are reached."
    )
    destination_registry: RegistryOptions = Field(
        default_factory=RegistryOptions,
        title="Destination registry",
        description="How the destination's registry is reached.",
    )

    @field_validator("source", "destination")
    @classmethod
    def _without_login(cls, name: str) -> str:
        if "://" in name:
            raise ValueError("leave out http:// or https://")
        return name.strip()

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            request = self.request()
            if self.kind is not SourceKind.LOCK:
                parse_any(self.source)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        self.destination = str(request.destination)
        return self

    def request(self) -> RelocationRequest:
        return RelocationRequest(
            **{self.kind.value: self.source},
            to=self.destination,
            tags=tuple(self.tags),
            artifacts=frozenset(artifact.value for artifact in self.artifacts),
            repo_based_tags=self.repo_based_tags,
            include_non_distributable=self.include_non_distributable,
            platforms=tuple(self.platforms),
            shallow=self.shallow,
            names=tuple(self.names),
            repair=self.repair,
        )

    def order(self) -> Order:
        """The same for the tasks, which know nothing of forms."""
        return Order(
            request=self.request(),
            source=_side(self.source_registry, self.source_credentials, self.concurrency),
            destination=_side(self.destination_registry, self.destination_credentials, self.concurrency),
            concurrency=self.concurrency,
        )

    @classmethod
    def of(cls, request: RelocationRequest, *, concurrency: int, verify: Verify) -> Self:
        """What the form would have to say for `request`; how registries are reached isn't in a request."""
        kind = SourceKind.BUNDLE if request.bundle else SourceKind.IMAGE if request.image else SourceKind.LOCK
        return cls(
            kind=kind,
            source=request.bundle or request.image or request.lock,
            destination=request.to,
            tags=list(request.tags),
            artifacts=[Artifact(name) for name in sorted(request.artifacts)],
            platforms=list(request.platforms),
            verify=verify,
            concurrency=concurrency,
            repo_based_tags=request.repo_based_tags,
            include_non_distributable=request.include_non_distributable,
            shallow=request.shallow,
            names=list(request.names),
            repair=request.repair,
        )


def _side(options: RegistryOptions, credentials: list[str], concurrency: int) -> Side:
    return Side(settings=options.settings(concurrency), credentials=tuple(credentials), anonymous=options.anonymous)
