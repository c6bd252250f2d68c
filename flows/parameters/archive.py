"""What writing an archive, and bringing one to a registry, needs to know."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.parameters.registry import ArchivePlace, BlockName, Credentials, S3StoreName, StoreText, side
from flows.parameters.relocate import RelocateParameters, SourceKind, Verify
from oci.archive.plan import Group
from oci.archive.planner import ArchiveOptions
from oci.errors import InvalidInput
from oci.reference import ARCHIVE_PREFIX, S3_PREFIX, ArchiveName, parse_any
from oci.registry.options import RegistryOptions
from oci.relocation.request import Artifact, RelocationRequest
from tasks.fleet import Fleet
from tasks.relocation import Order
from tasks.tarball import ExportOrder

MIB = 1 << 20
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
    base: str = Field(
        default="",
        title="Older archive",
        description="What it has unchanged is copied out of it inside the store instead of being fetched. May be the "
        "archive that is to be replaced.",
        examples=["s3://archives/shop-1.3.9.tar"],
        max_length=2000,
    )
    delta_from: str = Field(
        default="",
        title="Delta from",
        description="Leave out what the other side has: an archive, a repository, or a file that lists digests. The "
        "archive says what it requires.",
        max_length=2000,
    )
    format: Literal["imgpkg", "oci-layout"] = Field(
        default="imgpkg",
        title="Format",
        description="imgpkg: as that program reads it. oci-layout: as skopeo, crane and oras read it.",
    )
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
    volume_mebibytes: int = Field(
        default=0, title="MiB in a volume", description="0: one archive, whatever its size.", ge=0, le=5 * MIB
    )
    part_mebibytes: int = Field(
        default=16,
        title="MiB in a part",
        description="More where S3's 10,000 parts wouldn't be enough. Four are in memory at a time.",
        ge=5,
        le=5120,
    )
    groups: int = Field(
        default=8, title="Groups of parts", description="Each is a task run that is retried alone.", ge=1, le=500
    )
    resume: bool = Field(
        default=True,
        title="Resume",
        description="Go on with what an earlier run of the very same archive has stored.",
    )
    concurrency: int = Field(default=8, title="Concurrency", description="Reads on their way at a time.", ge=1, le=64)
    source_credentials: Credentials = []
    source_registry: RegistryOptions = Field(
        default_factory=RegistryOptions, title="Source registry", description="How the source's registries are reached."
    )
    s3_store: S3StoreName = ""
    deployment: str = Field(
        default="",
        title="Fleet",
        description="FLOW/DEPLOYMENT that writes a group of parts on any worker. Empty: all groups are written by this "
        "run, one after the other.",
        examples=["write-archive-parts/fleet"],
        pattern=r"^([^/]+/[^/]+)?$",
        max_length=400,
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        try:
            self.request()
            self.options()
            if self.kind is not SourceKind.LOCK:
                parse_any(self.source)
            if self.base:
                ArchiveName.of(self.base)
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        if self.deployment and not self.archive.startswith(S3_PREFIX):
            raise ValueError("workers on several machines write one object, s3://BUCKET/KEY, not a file")
        if self.deployment and self.kind is SourceKind.LOCK:
            raise ValueError("a lock is a file of one machine: several workers can't read it")
        return self

    def request(self) -> RelocationRequest:
        source: dict[str, Any] = {self.kind.value: self.source}
        return RelocationRequest(
            **source,
            to=f"{ARCHIVE_PREFIX}{self.archive}",
            tags=tuple(self.tags),
            artifacts=frozenset(artifact.value for artifact in self.artifacts),
            include_non_distributable=self.include_non_distributable,
        )

    def options(self) -> ArchiveOptions:
        return ArchiveOptions(
            format=self.format,
            base=self.base,
            delta_from=self.delta_from,
            max_size=self.volume_mebibytes * MIB,
            part_size=self.part_mebibytes * MIB,
        )

    def order(self) -> ExportOrder:
        """The same for the tasks, which know nothing of forms."""
        reached = side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store)
        order = Order(request=self.request(), source=reached, destination=reached, concurrency=self.concurrency)
        return ExportOrder(order=order, options=self.options(), resume=self.resume)

    def fleet(self) -> Fleet:
        return Fleet(deployment=self.deployment)


class PartsParameters(BaseModel):
    """A group of parts of an archive. Such runs are started by the run that has begun the archive."""

    model_config = ConfigDict(extra="forbid", title="Parts of an archive", hide_input_in_errors=True)

    export: ExportParameters = Field(title="Export", description="The archive, its source pinned by digest.")
    seal: str = Field(title="Seal", description="Of the plan: this run must come to the same.", max_length=64)
    tickets: list[str] = Field(title="Tickets", description="With which the upload is joined, one for each volume.")
    volume: int = Field(title="Volume", description="Counted from 0.", ge=0)
    parts: list[int] = Field(title="Parts", description="The numbers of the parts to write.", min_length=1)

    @classmethod
    def sent(
        cls, export: ExportParameters, request: RelocationRequest, seal: str, tickets: tuple[str, ...], group: Group
    ) -> dict[str, Any]:
        """As the flow run that is to write `group` gets them; `request` is the pinned one."""
        pinned = export.model_copy(
            update={"source": request.bundle or request.image, "tags": list(request.tags), "deployment": ""}
        )
        parameters = cls(
            export=pinned, seal=seal, tickets=list(tickets), volume=group.volume, parts=list(group.numbers)
        )
        return {"parameters": parameters.model_dump(mode="json", exclude_defaults=True)}

    def order(self) -> ExportOrder:
        asked = self.export.order()
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
        self.relocation()
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
