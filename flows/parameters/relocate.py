"""The parameters of a relocation, and of the runs that it starts: a helper, a group of parts of an archive."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import unquote

import msgspec

from flows.parameters.forms import (
    RATE_PART,
    S3_STORE,
    SLUG,
    BlockName,
    FleetOptions,
    OutputPath,
    QueueName,
    S3StoreName,
    ShortText,
    archive_location,
    block_of,
    credentials_option,
    side,
    without_scheme,
)
from oci.archive.entry import OCI_LAYOUT
from oci.archive.options import ExportOptions
from oci.errors import InvalidInput
from oci.export.plan import PartGroup
from oci.mirror.config import BLOCK
from oci.options import Options, option, required
from oci.reference import (
    ARCHIVE_PREFIX,
    DOCKER_ARCHIVE_PREFIX,
    S3_PREFIX,
    ArchiveName,
    in_object_store,
    named_archive,
    parse_any,
)
from oci.registry.options import DEFAULT_CONCURRENCY, RegistryOptions
from oci.relocation.driver import Verify
from oci.relocation.request import CopyOptions, ReceiptOptions, RelocationRequest
from tasks.archive import ExportRun
from tasks.fleet.queue import ShardQueue
from tasks.relocate import RelocationRun


class TarballOptions(Options):
    """How an archive is written, and by whom."""

    export: ExportOptions = option(ExportOptions(), "How the archive is written.", flat=True)
    resume: bool = option(True, "Go on with what an earlier run of the same archive has stored.")
    sha256sums: bool = option(
        False, "Write NAME.SHA256SUMS beside the archive, which is read once more for it.", title="SHA256SUMS"
    )
    groups: int = option(
        8, "Each group is a task run, which is retried alone.", title="Groups of parts", ge=1, le=500, group="advanced"
    )
    deployment: str = option(
        "",
        "FLOW/DEPLOYMENT that writes a group of parts on any worker. Empty: this run writes all groups.",
        title="Fleet",
        examples=["write-archive-parts/fleet"],
        pattern=r"^([^/]+/[^/]+)?$",
        max_length=400,
        group="advanced",
    )


SOURCE_CREDENTIALS = credentials_option("registry-example-reader")
DESTINATION_CREDENTIALS = credentials_option("corp-mirror-writer")
CONCURRENCY = option(DEFAULT_CONCURRENCY, "Images, and blobs, in flight at a time.", ge=1, le=64)
SOURCE_REGISTRY = option(RegistryOptions(), "How the source's registries are reached.", group="advanced")
DESTINATION_REGISTRY = option(RegistryOptions(), "How the destination's registry is reached.", group="advanced")
SigningKeyName = Annotated[str, msgspec.Meta(extra_json_schema={SLUG: "signing-key"})]


class SourceKind(StrEnum):
    """What the source is."""

    BUNDLE = "bundle"
    IMAGE = "image"
    LOCK = "lock"
    ARCHIVE = "archive"


class RelocateParameters(Options):
    """Copy a bundle, an image, everything a lock file lists or an archive to another registry, under the same digests,
    or into an archive."""

    FIRST: ClassVar = ("tags", "verify", "kind", "source_credentials", "destination_credentials", "artifacts")

    source: ShortText = required(
        "Such as registry.example/shop/bundle:1.4.0, with :TAG or @DIGEST; oci:PATH[:TAG] for a layout folder; the "
        "path of an ImagesLock or BundleLock file; or where an archive is: a file, s3://BUCKET/KEY, or "
        "archive:FIRST|SECOND for the volumes of one.",
        examples=["registry.example/shop/shop-bundle:1.4.0", "/etc/transship/images.lock.yml"],
    )
    destination: ShortText = required(
        "Such as registry.corp.example/mirror/shop, without a tag; oci:PATH for a layout folder; or where an archive "
        "is to be: s3://BUCKET/KEY, or the path of a file on the worker. All images go into it.",
        examples=["registry.corp.example/mirror/shop", "s3://archives/shop-1.4.0.tar"],
    )
    kind: SourceKind = option(
        SourceKind.BUNDLE,
        "bundle: with all that it lists. image: one image or index alone. lock: a file on the worker. archive: all of "
        "it, or what the field Only names.",
        title="Kind of source",
    )
    how: CopyOptions = option(CopyOptions(), "How the source is copied.", flat=True)
    verify: Verify = option(
        Verify.NONE,
        "head: ask the destination for every blob. deep: read and hash every byte again.",
        title="Verify the result",
    )
    lock_output: OutputPath = option("", "File on the worker to write a lock of the result to.")
    report: OutputPath = option("", "JSON file on the worker to write what became of each image to.")
    receipts: ReceiptOptions = option(ReceiptOptions(), "What is left in writing.", flat=True)
    signing_key: SigningKeyName = option(
        "",
        "Signing Key block, by name, in the place of a file on the worker.",
        pattern=BLOCK,
        max_length=400,
        group="signatures",
        spelled=block_of,
    )
    source_credentials: tuple[BlockName, ...] = SOURCE_CREDENTIALS
    destination_credentials: tuple[BlockName, ...] = DESTINATION_CREDENTIALS
    tarball: TarballOptions | None = option(
        None,
        "How an archive that is the destination is written. None: as imgpkg writes it, in one piece.",
        title="Archive",
        group="advanced",
    )
    fleet: FleetOptions | None = option(
        None,
        "Spread a large relocation over the workers of a work pool. None: all of it is done by this run. An archive "
        "names its fleet itself.",
        group="advanced",
    )
    concurrency: int = CONCURRENCY
    source_registry: RegistryOptions = SOURCE_REGISTRY
    destination_registry: RegistryOptions = DESTINATION_REGISTRY
    s3_store: S3StoreName = S3_STORE

    def __post_init__(self) -> None:
        """Brings source and destination into their canonical form."""
        for name, value in self._read_transports().items():
            msgspec.structs.force_setattr(self, name, value)
        destination = without_scheme(self.destination)
        if destination.startswith((S3_PREFIX, "/")):
            destination = str(ArchiveName.of(archive_location(destination)))
        msgspec.structs.force_setattr(self, "destination", destination)
        msgspec.structs.force_setattr(self, "source", without_scheme(self.source))
        request = self.request()
        if self.kind is SourceKind.ARCHIVE:
            source = str(ArchiveName.of(*map(archive_location, request.archive)))
            msgspec.structs.force_setattr(self, "source", source)
        elif self.kind is not SourceKind.LOCK:
            parse_any(self.source)
        msgspec.structs.force_setattr(self, "destination", str(request.destination))
        self.receipts.check_for(request, signed=self.signed)
        if isinstance(request.destination, ArchiveName):
            self._check_archive(request.destination)
        elif self.tarball:
            raise InvalidInput("the destination is no archive")

    def _read_transports(self) -> dict[str, Any]:
        """Returns the fields that docker-archive:PATH[:NAME] and oci-archive:PATH[:NAME] stand for."""
        fields: dict[str, Any] = {}
        how = self.how
        if (source := named_archive(self.source)) is not None:
            how = how.with_(only=(*how.only, *filter(None, source[1:])))
            fields = {"kind": SourceKind.ARCHIVE, "source": source[0]}
        if self.destination.startswith(DOCKER_ARCHIVE_PREFIX):
            raise InvalidInput(
                "a flow writes an archive in parts, whose places are planned, and what docker's layers unpack to is "
                "known in the end",
                hint="use oci-archive:PATH, or on a machine: transship copy --to-repo docker-archive:PATH",
            )
        if (place := named_archive(self.destination)) is not None:
            how = how.with_(tags=(*how.tags, *filter(None, place[1:])))
            tarball = self.tarball or TarballOptions()
            tarball = tarball.with_(export=tarball.export.with_(format=OCI_LAYOUT))
            fields |= {"destination": str(ArchiveName.of(archive_location(place[0]))), "tarball": tarball}
        return fields | {"how": how}

    def _check_archive(self, name: ArchiveName) -> None:
        if len(name.locations) > 1:
            raise InvalidInput("an archive that is written has one name: its volumes are numbered by themselves")
        tarball = self.tarball or TarballOptions()
        for location in filter(None, (*name.locations, tarball.export.base)):
            archive_location(location)
        if self.how.repair or self.how.repo_based_tags:
            raise InvalidInput(
                "an archive is written anew and keeps no tags alive: leave out repair and repo_based_tags"
            )
        if self.lock_output:
            raise InvalidInput("a lock names registries only: leave out lock_output")
        if self.fleet:
            raise InvalidInput("the fleet of an archive is named in its own settings, as tarball.deployment")
        if not tarball.deployment:
            return
        if not in_object_store(name.location):
            raise InvalidInput("workers on several machines write one object, s3://BUCKET/KEY, not a file")
        if self.kind is SourceKind.LOCK:
            raise InvalidInput("a lock is a file of one machine: several workers can't read it")
        if self.kind is SourceKind.ARCHIVE and not all(map(in_object_store, self.request().archive_name.locations)):
            raise InvalidInput("the source is a file of one machine: several workers can't read it")

    @property
    def signed(self) -> bool:
        return bool(self.receipts.sign or self.signing_key)

    @property
    def archive(self) -> str:
        """Where the archive is to be; empty for any other destination."""
        return self.request().destination.location

    @property
    def short_source(self) -> str:
        """Returns the source as the name of a run shows it."""
        is_file = self.kind in (SourceKind.LOCK, SourceKind.ARCHIVE)
        return self.source.rpartition("/")[2] if is_file else self.request().reference.short

    def request(self) -> RelocationRequest:
        source: dict[str, Any] = {self.kind.value: self.source}
        if self.kind is SourceKind.ARCHIVE:
            text = self.source.removeprefix(ARCHIVE_PREFIX)
            source = {"archive": tuple(unquote(location) for location in text.split("|"))}
        return RelocationRequest(to=self.destination, **source, **msgspec.structs.asdict(self.how))

    def run(self) -> RelocationRun:
        return self.export_run() if self.archive else RelocationRun(self.request(), **self._how_run)

    def export_run(self, **upload: Any) -> ExportRun:
        """Returns the run that writes the archive; `upload` names one that another run has begun."""
        tarball = self.tarball or TarballOptions()
        options = tarball.export.with_(record=tarball.export.record or bool(self.receipts.receipt))
        return ExportRun(self.request(), options, resume=tarball.resume, **upload, **self._how_run)

    @property
    def _how_run(self) -> dict[str, Any]:
        return {
            "source": side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store),
            "destination": side(
                self.destination_registry, self.destination_credentials, self.concurrency, self.s3_store
            ),
            "concurrency": self.concurrency,
            "verify": self.verify,
        }

    @classmethod
    def of(cls, request: RelocationRequest, **more: Any) -> Self:
        """Returns the form for `request`; how registries are reached isn't in a request."""
        kind = next(kind for kind in SourceKind if getattr(request, kind.value))
        how = CopyOptions(**{name: getattr(request, name) for name in CopyOptions.__struct_fields__})
        source = str(request.archive_name) if request.archive else request.source_text
        return cls(kind=kind, source=source, destination=request.to, how=how, **more)


class ShardParameters(Options):
    """Help with a relocation. Such runs are started by the run that has the whole plan."""

    queue: QueueName = required("Where the shards are.")
    source: str = required(
        "What the whole relocation copies. Its registry is one that the user named: it gets the login of the "
        "environment, and may be as near as it is.",
        max_length=2000,
    )
    destination: str = required("Repository that the images go to.", max_length=1000)
    images_together: int = option(1, "Images in a task run.", ge=1, le=1000)
    source_credentials: tuple[BlockName, ...] = SOURCE_CREDENTIALS
    destination_credentials: tuple[BlockName, ...] = DESTINATION_CREDENTIALS
    concurrency: int = CONCURRENCY
    source_registry: RegistryOptions = SOURCE_REGISTRY
    destination_registry: RegistryOptions = DESTINATION_REGISTRY
    s3_store: S3StoreName = S3_STORE

    @classmethod
    def sent(cls, whole: RelocateParameters, images_together: int, queue: ShardQueue) -> dict[str, Any]:
        """Returns the parameters of a flow run that helps with `whole`."""
        of_shard = {"queue", "images_together"}
        shared = {name: getattr(whole, name) for name in cls.__struct_fields__ if name not in of_shard}
        return cls(queue=QueueName.of(queue), images_together=images_together, **shared).to_dict()

    def run(self) -> RelocationRun:
        return RelocationRun(
            source=side(self.source_registry, self.source_credentials, self.concurrency, self.s3_store),
            destination=side(self.destination_registry, self.destination_credentials, self.concurrency),
            concurrency=self.concurrency,
        )


class PartsParameters(Options):
    """A group of parts of an archive. Such runs are started by the run that has begun the archive."""

    relocation: RelocateParameters = required("The relocation into the archive, its source pinned by digest.")
    fingerprint: str = required("Fingerprint of the plan: this run must make the same plan.", max_length=64)
    tickets: tuple[str, ...] = required("Tickets of the upload, one for each volume.", max_length=10_000)
    volume: int = required("Number of the volume, from 0.", ge=0, le=10_000)
    part: float = RATE_PART
    parts: tuple[int, ...] = required("The numbers of the parts to write.", min_length=1, max_length=10_000)

    @classmethod
    def sent(
        cls,
        whole: RelocateParameters,
        request: RelocationRequest,
        fingerprint: str,
        tickets: tuple[str, ...],
        group: PartGroup,
        *,
        part: float,
    ) -> dict[str, Any]:
        """Returns the parameters of the flow run that is to write `group`; `request` is the pinned one."""
        how = msgspec.structs.replace(whole.how, tags=request.tags)
        source = request.bundle or request.image or whole.source
        pinned = msgspec.structs.replace(whole, source=source, how=how)
        numbers = tuple(group.numbers)
        return cls(
            relocation=pinned,
            fingerprint=fingerprint,
            tickets=tickets,
            volume=group.volume,
            part=part,
            parts=numbers,
        ).to_dict()

    def run(self) -> ExportRun:
        return self.relocation.export_run(fingerprint=self.fingerprint, tickets=self.tickets)
