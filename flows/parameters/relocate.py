"""What a relocation needs to know."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.fleet import FleetOptions
from flows.parameters.registry import BlockName, S3StoreName, StoreText, archive_place, side
from flows.parameters.tarball import TarballOptions
from oci.archive.open import in_object_store
from oci.errors import InvalidInput
from oci.reference import ARCHIVE_PREFIX, S3_PREFIX, ArchiveName, parse_any, parse_store
from oci.registry.form import RegistryForm as RegistryOptions
from oci.relocation.request import Artifact, RelocationRequest
from oci.relocation.run import Verify
from tasks.archive import ExportOrder
from tasks.relocate import Order


class SourceKind(StrEnum):
    """What the source is."""

    BUNDLE = "bundle"
    IMAGE = "image"
    LOCK = "lock"
    ARCHIVE = "archive"


class RelocateParameters(BaseModel):
    """Copy a bundle, an image, everything a lock file lists or an archive to another registry, under the same digests,
    or into an archive."""

    model_config = ConfigDict(extra="forbid", title="Relocation", hide_input_in_errors=True)

    kind: SourceKind = Field(
        default=SourceKind.BUNDLE,
        title="Kind of source",
        description="A bundle travels with all it lists, an image or index alone. A lock is a file on the worker. "
        "All of an archive travels unless `only` says less.",
    )
    source: StoreText = Field(
        title="Source",
        description="Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout "
        "folder; the path of an ImagesLock or BundleLock file; or where an archive is: a file, s3://BUCKET/KEY, or "
        "archive:FIRST|SECOND for the volumes of one.",
        examples=["registry.example/shop/shop-bundle:1.4.0", "/etc/transship/images.lock.yml"],
    )
    destination: StoreText = Field(
        title="Destination",
        description="Such as registry.corp.example/mirror/shop, without a tag; oci:PATH for a layout folder; or where "
        "an archive is to be: s3://BUCKET/KEY, or the path of a file on the worker. All of it goes into this one.",
        examples=["registry.corp.example/mirror/shop", "s3://archives/shop-1.4.0.tar"],
    )
    tags: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]] = Field(
        default=[],
        title="Tags",
        description="Names at the destination. Empty: the tag that the source carries.",
        examples=[["1.4.0", "latest"]],
        max_length=100,
    )
    only: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        default=[],
        title="Only",
        description="Of an archive, these images and what belongs to them: digests, tags, or references as they stand "
        "in it.",
        max_length=1000,
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
    tarball: TarballOptions | None = Field(
        default=None,
        title="Archive",
        description="How an archive that is the destination is to be. None: as imgpkg writes it, in one piece.",
    )
    repair: bool = Field(
        default=False,
        title="Repair",
        description="Ask the destination for every blob, and send again what it has lost.",
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
    concurrency: int = Field(
        default=8, title="Concurrency", description="Images, and blobs, on their way at a time.", ge=1, le=64
    )
    source_registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Source registry", description="How the source's registries are reached."
    )
    destination_registry: RegistryOptions = Field(
        default_factory=RegistryOptions,
        title="Destination registry",
        description="How the destination's registry is reached.",
    )

    s3_store: S3StoreName = ""
    fleet: FleetOptions | None = Field(
        default=None,
        title="Fleet",
        description="Spread a large relocation over the workers of a work pool. None: all of it is done by this run. "
        "An archive names its fleet itself.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.destination.startswith((S3_PREFIX, "/")):
            self.destination = str(ArchiveName.of(archive_place(self.destination)))
        try:
            request = self.request()
            if self.kind is SourceKind.ARCHIVE:
                self.source = str(ArchiveName.of(*map(archive_place, request.archive)))
            elif self.kind is not SourceKind.LOCK:
                parse_any(self.source)
            self.destination = str(request.destination)
            if isinstance(request.destination, ArchiveName):
                self._check_archive(request.destination)
            elif self.tarball:
                raise ValueError("the destination is no archive")
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return self

    def _check_archive(self, name: ArchiveName) -> None:
        if len(name.locations) > 1:
            raise ValueError("an archive that is written has one name: its volumes are numbered by themselves")
        tarball = self.tarball or TarballOptions()
        tarball.options()
        for location in filter(None, (*name.locations, tarball.base)):
            archive_place(location)
        if self.repair or self.repo_based_tags:
            raise ValueError("an archive is written anew and keeps no tags alive: leave out repair and repo_based_tags")
        if self.fleet:
            raise ValueError("what writes the parts of an archive is named in its own settings, as tarball.deployment")
        if tarball.deployment:
            self._check_shared(name)

    def _check_shared(self, name: ArchiveName) -> None:
        if not in_object_store(name.locations[0]):
            raise ValueError("workers on several machines write one object, s3://BUCKET/KEY, not a file")
        if self.kind is SourceKind.LOCK:
            raise ValueError("a lock is a file of one machine: several workers can't read it")
        if self.kind is SourceKind.ARCHIVE and not all(map(in_object_store, self.request().archive_name.locations)):
            raise ValueError("the source is a file of one machine: several workers can't read it")

    @property
    def archive(self) -> str:
        """Where the archive is to be; empty for any other destination."""
        name = parse_store(self.destination)
        return name.locations[0] if isinstance(name, ArchiveName) else ""

    def request(self) -> RelocationRequest:
        source: dict[str, Any] = {self.kind.value: self.source}
        if self.kind is SourceKind.ARCHIVE:
            text = self.source.removeprefix(ARCHIVE_PREFIX)
            source = {"archive": tuple(unquote(place) for place in text.split("|")), "only": tuple(self.only)}
        return RelocationRequest(
            **source,
            to=self.destination,
            tags=tuple(self.tags),
            artifacts=frozenset(self.artifacts),
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
            source=side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store),
            destination=side(self.destination_registry, self.destination_credentials, self.concurrency, self.s3_store),
            concurrency=self.concurrency,
            verify=self.verify,
        )

    def export_order(self) -> ExportOrder:
        tarball = self.tarball or TarballOptions()
        return ExportOrder(order=self.order(), options=tarball.options(), resume=tarball.resume)

    @classmethod
    def of(
        cls,
        request: RelocationRequest,
        *,
        concurrency: int,
        verify: Verify,
        tarball: TarballOptions | None = None,
    ) -> Self:
        """What the form would have to say for `request`; how registries are reached isn't in a request."""
        kind = next(kind for kind in SourceKind if getattr(request, kind.value))
        archive = str(request.archive_name) if request.archive else ""
        return cls(
            kind=kind,
            source=archive or request.bundle or request.image or request.lock,
            only=list(request.only),
            destination=request.to,
            tags=list(request.tags),
            artifacts=[Artifact(name) for name in sorted(request.artifacts)],
            platforms=list(request.platforms),
            verify=verify,
            tarball=tarball,
            concurrency=concurrency,
            repo_based_tags=request.repo_based_tags,
            include_non_distributable=request.include_non_distributable,
            shallow=request.shallow,
            names=list(request.names),
            repair=request.repair,
        )
