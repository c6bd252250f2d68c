"""How an archive that is written is to be."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from oci.errors import InvalidInput
from oci.export.options import ExportOptions
from tasks.fleet import Fleet

MIB = 1 << 20

Base = Annotated[
    str,
    Field(
        title="Older archive",
        description="What it has unchanged is copied out of it inside the store instead of being fetched. May be the "
        "archive that is to be replaced.",
        examples=["s3://archives/shop-1.3.9.tar"],
        max_length=2000,
    ),
]
DeltaFrom = Annotated[
    str,
    Field(
        title="Delta from",
        description="Leave out what the other side has: an archive, a repository, or a file that lists digests. The "
        "archive says what it requires.",
        max_length=2000,
    ),
]
Format = Annotated[
    Literal["imgpkg", "oci-layout"],
    Field(
        title="Format",
        description="imgpkg: as that program reads it. oci-layout: as skopeo, crane and oras read it.",
    ),
]
VolumeMebibytes = Annotated[
    int,
    Field(title="MiB in a volume", description="0: one archive, whatever its size.", ge=0, le=5 * MIB),
]
PartMebibytes = Annotated[
    int,
    Field(
        title="MiB in a part",
        description="More where S3's 10,000 parts wouldn't be enough. 64 MiB of them are in memory at a time; a part "
        "that is bigger isn't held, but read twice.",
        ge=5,
        le=5120,
    ),
]
Groups = Annotated[
    int, Field(title="Groups of parts", description="Each is a task run that is retried alone.", ge=1, le=500)
]
Resume = Annotated[
    bool,
    Field(title="Resume", description="Go on with what an earlier run of the very same archive has stored."),
]
PartsDeployment = Annotated[
    str,
    Field(
        title="Fleet",
        description="FLOW/DEPLOYMENT that writes a group of parts on any worker. Empty: all groups are written by this "
        "run.",
        examples=["write-archive-parts/fleet"],
        pattern=r"^([^/]+/[^/]+)?$",
        max_length=400,
    ),
]


class TarballOptions(BaseModel):
    """How an archive that is written is to be."""

    model_config = ConfigDict(extra="forbid", title="Archive")

    format: Format = "imgpkg"
    base: Base = ""
    delta_from: DeltaFrom = ""
    volume_mebibytes: VolumeMebibytes = 0
    part_mebibytes: PartMebibytes = 16
    groups: Groups = 8
    resume: Resume = True
    deployment: PartsDeployment = ""

    @classmethod
    def of(cls, options: ExportOptions, *, resume: bool) -> Self:
        """What the form would have to say. Raises InvalidInput for sizes that it has no words for."""
        if options.max_size % MIB or options.part_size % MIB:
            raise InvalidInput("a flow counts volumes and parts in MiB", hint="give whole ones: 4GiB, 500MiB")
        return cls(
            format=options.format,  # type: ignore[arg-type]
            base=options.base,
            delta_from=options.delta_from,
            volume_mebibytes=options.max_size // MIB,
            part_mebibytes=options.part_size // MIB,
            resume=resume,
        )

    def options(self) -> ExportOptions:
        """The same for the tasks, which know nothing of forms."""
        return ExportOptions(
            format=self.format,
            base=self.base,
            delta_from=self.delta_from,
            max_size=self.volume_mebibytes * MIB,
            part_size=self.part_mebibytes * MIB,
        )

    def fleet(self) -> Fleet:
        return Fleet(deployment=self.deployment)
