"""What writing an archive, and bringing one to a registry, needs to know."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import ArchivePlace, BlockName, Credentials, S3StoreName, StoreText
from flows.parameters.relocate import RelocateParameters, SourceKind, Verify
from flows.parameters.tarball import (
    Base,
    DeltaFrom,
    Format,
    Groups,
    PartMebibytes,
    PartsDeployment,
    Resume,
    TarballOptions,
    VolumeMebibytes,
)
from oci.archive.plan import Group
from oci.reference import ArchiveName
from oci.registry.options import RegistryOptions
from oci.relocation.request import Artifact, RelocationRequest
from tasks.tarball import ExportOrder

Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]


class ExportParameters(BaseModel):
    """Write a bundle, an image or everything a lock lists into an archive, straight to where it is to be."""

    model_config = ConfigDict(extra="forbid", title="Export", hide_input_in_errors=True)

    kind: Literal[SourceKind.BUNDLE, SourceKind.IMAGE, SourceKind.LOCK] = Field(
        default=SourceKind.BUNDLE,
        title="Kind of source",
        description="A bundle travels with all it lists, an image or index alone. A lock is a file on the worker.",
    )
    source: StoreText = Field(
        title="Source",
        description="Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout "
        "folder; or the path of an ImagesLock or BundleLock file.",
        examples=["registry.example/shop/shop-bundle:1.4.0"],
    )
    archive: ArchivePlace = Field(
        title="Archive",
        description="s3://BUCKET/KEY, or a file on the worker. Nobody sees it before it is complete; an older one "
        "stays until then.",
        examples=["s3://archives/shop-1.4.0.tar"],
    )
    tags: list[Tag] = Field(
        default=[],
        title="Tags",
        description="Names that the root gets when the archive is imported. Empty: the tag that the source carries.",
        examples=[["1.4.0"]],
        max_length=100,
    )
    base: Base = ""
    delta_from: DeltaFrom = ""
    format: Format = "imgpkg"
    artifacts: list[Artifact] = Field(
        default=[],
        title="Attached artifacts",
        description="cosign: signatures, attestations and SBOMs kept under tags. referrers: whatever names an image as "
        "its subject.",
        max_length=2,
    )
    include_non_distributable: bool = Field(
        default=False,
        title="Include non-distributable layers",
        description="Copy layers that their makers say must not be given on; you need their permission.",
    )
    volume_mebibytes: VolumeMebibytes = 0
    part_mebibytes: PartMebibytes = 16
    groups: Groups = 8
    resume: Resume = True
    concurrency: int = Field(default=8, title="Concurrency", description="Reads on their way at a time.", ge=1, le=64)
    source_credentials: Credentials = []
    source_registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Source registry", description="How the source's registries are reached."
    )
    s3_store: S3StoreName = ""
    deployment: PartsDeployment = ""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self.relocation()
        return self

    def relocation(self) -> RelocateParameters:
        return RelocateParameters(
            kind=self.kind,
            source=self.source,
            destination=str(ArchiveName.of(self.archive)),
            tags=self.tags,
            artifacts=self.artifacts,
            include_non_distributable=self.include_non_distributable,
            concurrency=self.concurrency,
            source_credentials=self.source_credentials,
            source_registry=self.source_registry,
            # What a delta is compared with is reached as the source is.
            destination_credentials=self.source_credentials,
            destination_registry=self.source_registry,
            s3_store=self.s3_store,
            tarball=TarballOptions.model_validate(self, from_attributes=True),
        )


class PartsParameters(BaseModel):
    """A group of parts of an archive. Such runs are started by the run that has begun the archive."""

    model_config = ConfigDict(extra="forbid", title="Parts of an archive", hide_input_in_errors=True)

    relocation: RelocateParameters = Field(
        title="Relocation", description="Into the archive, its source pinned by digest."
    )
    seal: str = Field(title="Seal", description="Of the plan: this run must come to the same.", max_length=64)
    tickets: list[str] = Field(title="Tickets", description="With which the upload is joined, one for each volume.")
    volume: int = Field(title="Volume", description="Counted from 0.", ge=0)
    parts: list[int] = Field(title="Parts", description="The numbers of the parts to write.", min_length=1)

    @classmethod
    def sent(
        cls, whole: RelocateParameters, request: RelocationRequest, seal: str, tickets: tuple[str, ...], group: Group
    ) -> dict[str, Any]:
        """As the flow run that is to write `group` gets them; `request` is the pinned one."""
        pinned = whole.model_copy(
            update={"source": request.bundle or request.image or whole.source, "tags": list(request.tags)}
        )
        parameters = cls(
            relocation=pinned, seal=seal, tickets=list(tickets), volume=group.volume, parts=list(group.numbers)
        )
        return {"parameters": parameters.model_dump(mode="json", exclude_defaults=True)}

    def order(self) -> ExportOrder:
        asked = self.relocation.export_order()
        return ExportOrder(order=asked.order, options=asked.options, seal=self.seal, tickets=tuple(self.tickets))


class ImportParameters(BaseModel):
    """Bring what is in an archive to a registry. Where it once came from is never asked."""

    model_config = ConfigDict(extra="forbid", title="Import", hide_input_in_errors=True)

    archive: list[ArchivePlace] = Field(
        title="Archive",
        description="s3://BUCKET/KEY or a file on the worker; all volumes, in any order, of one that was split.",
        examples=[["s3://archives/shop-1.4.0.tar"]],
        min_length=1,
        max_length=1000,
    )
    destination: StoreText = Field(
        title="Destination",
        description="Such as registry.corp.example/mirror/shop, without a tag, or oci:PATH for a layout folder.",
        examples=["registry.corp.example/mirror/shop"],
    )
    only: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(
        default=[],
        title="Only",
        description="These images and what belongs to them: digests, tags, or references as they stand in the archive.",
        max_length=1000,
    )
    tags: list[Tag] = Field(
        default=[],
        title="Tags",
        description="Names at the destination. Empty: those that stand in the archive.",
        max_length=100,
    )
    verify: Verify = Field(
        default=Verify.NONE,
        title="Verify the result",
        description="head: ask the destination for every blob. deep: read and hash every byte again.",
    )
    concurrency: int = Field(
        default=8, title="Concurrency", description="Images, and blobs, on their way at a time.", ge=1, le=64
    )
    destination_credentials: list[BlockName] = Field(
        default=[],
        title="Destination credentials",
        description="Names of Registry Credentials blocks. Other registries use the worker's environment and docker "
        "config.",
        examples=[["corp-mirror-writer"]],
        max_length=16,
    )
    destination_registry: RegistryOptions = Field(
        default_factory=RegistryOptions,
        title="Destination registry",
        description="How the destination's registry is reached.",
    )
    s3_store: S3StoreName = ""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.relocation().archive:
            raise ValueError("the flow relocate writes one archive out of another")
        return self

    def relocation(self) -> RelocateParameters:
        return RelocateParameters(
            kind=SourceKind.ARCHIVE,
            source=str(ArchiveName.of(*self.archive)),
            only=self.only,
            destination=self.destination,
            tags=self.tags,
            verify=self.verify,
            concurrency=self.concurrency,
            destination_credentials=self.destination_credentials,
            destination_registry=self.destination_registry,
            s3_store=self.s3_store,
        )


class ShipParameters(BaseModel):
    """Write an archive, then bring it to a registry: the whole way over an object store that both sides reach."""

    model_config = ConfigDict(extra="forbid", title="Ship", hide_input_in_errors=True)

    export: ExportParameters = Field(title="Export", description="From where, and into which archive.")
    destination: StoreText = Field(
        title="Destination",
        description="Such as registry.corp.example/mirror/shop, without a tag, or oci:PATH for a layout folder.",
        examples=["registry.corp.example/mirror/shop"],
    )
    verify: Verify = Field(
        default=Verify.NONE,
        title="Verify the result",
        description="head: ask the destination for every blob. deep: read and hash every byte again.",
    )
    destination_credentials: list[BlockName] = Field(
        default=[],
        title="Destination credentials",
        description="Names of Registry Credentials blocks.",
        max_length=16,
    )
    destination_registry: RegistryOptions = Field(
        default_factory=RegistryOptions,
        title="Destination registry",
        description="How the destination's registry is reached.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        self.arriving([self.export.archive])
        return self

    def arriving(self, archive: list[str]) -> ImportParameters:
        return ImportParameters(
            archive=archive,
            destination=self.destination,
            verify=self.verify,
            concurrency=self.export.concurrency,
            destination_credentials=self.destination_credentials,
            destination_registry=self.destination_registry,
            s3_store=self.export.s3_store,
        )
