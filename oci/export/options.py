"""How an archive is written."""

from oci.archive.entry import FORMATS, IMGPKG
from oci.errors import InvalidInput
from oci.options import Options, option

DEFAULT_SIZE = 16 << 20
SMALLEST = 5 << 20
"""Bytes that S3 asks of every part but the last (Amazon S3 User Guide, "Multipart upload limits")."""


class ExportOptions(Options):
    """How an archive is written."""

    format: str = option(
        IMGPKG,
        "imgpkg: as that program reads it. oci-layout: as skopeo, crane and oras read it.",
        words=FORMATS,
        flag="--tar-format",
    )
    base: str = option(
        "",
        "Copy what has not changed out of this archive, which is in one piece, instead of fetching it. It may be the "
        "archive that is to be replaced.",
        title="Older archive",
        examples=["s3://archives/shop-1.3.9.tar"],
        max_length=2000,
        metavar="ARCHIVE",
    )
    delta_from: str = option(
        "",
        "Leave out what the other side has: an archive, a repository, or a file that lists digests of blobs or "
        "images. The archive says what it requires.",
        max_length=2000,
        metavar="ARCHIVE|REPOSITORY|FILE",
    )
    max_size: int = option(
        0,
        "Split the archive into volumes of at most this size; 0 for one archive, whatever its size.",
        title="Volume size",
        unit="bytes",
        ge=0,
        le=5 << 40,
        examples=["4GiB"],
    )
    record: bool = option(
        False,
        "Write into the archive what it was made of, and how, as a statement without a date: the same source gives "
        "the same archive. --receipt does so, too.",
        group="signatures",
    )
    part_size: int = option(
        DEFAULT_SIZE,
        "Bytes that are written at a time; more where S3's 10,000 parts would not be enough. 40 MiB of parts are in "
        "memory at a time; a part that is bigger is read twice instead.",
        unit="bytes",
        ge=SMALLEST,
        le=5 << 30,
        group="advanced",
    )

    max_blob_size: int = option(
        1 << 40,
        "Bytes that one blob of the source may have. An image that states more is refused.",
        title="Largest blob",
        unit="bytes",
        ge=1,
        le=5 << 40,
        group="advanced",
    )

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidInput(f"unknown archive format {self.format!r}", hint=f"known are {', '.join(FORMATS)}")
        if self.max_size < 0 or self.part_size < SMALLEST:
            raise InvalidInput(f"a part has {SMALLEST} bytes or more, and a volume more than none")
