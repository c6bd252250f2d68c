"""How an archive is written."""

from typing import Annotated

from oci.archive.entry import FORMATS, IMGPKG
from oci.errors import InvalidInput
from oci.options import Options, option

DEFAULT_SIZE = 16 << 20
SMALLEST = 5 << 20
"""Bytes that S3 asks of every part but the last (Amazon S3 User Guide, "Multipart upload limits")."""


class ExportOptions(Options, frozen=True, kw_only=True):
    """How an archive is written."""

    format: Annotated[
        str,
        option(
            "Format",
            "imgpkg: as that program reads it. oci-layout: as skopeo, crane and oras read it.",
            words=FORMATS,
            flag="--tar-format",
        ),
    ] = IMGPKG
    base: Annotated[
        str,
        option(
            "Older archive",
            "Copy what has not changed out of this archive, which is in one piece, instead of fetching it. It may be "
            "the archive that is to be replaced.",
            examples=["s3://archives/shop-1.3.9.tar"],
            max_length=2000,
            metavar="ARCHIVE",
        ),
    ] = ""
    delta_from: Annotated[
        str,
        option(
            "Delta from",
            "Leave out what the other side has: an archive, a repository, or a file that lists digests of blobs or "
            "images. The archive says what it requires.",
            max_length=2000,
            metavar="ARCHIVE|REPOSITORY|FILE",
        ),
    ] = ""
    max_size: Annotated[
        int,
        option(
            "Volume size",
            "Split the archive into volumes of at most this size; 0 for one archive, whatever its size.",
            unit="bytes",
            ge=0,
            le=5 << 40,
            examples=["4GiB"],
        ),
    ] = 0
    record: Annotated[
        bool,
        option(
            "Record",
            "Write into the archive what it was made of, and how, as a statement without a date: the same source gives "
            "the same archive. --receipt does so, too.",
            group="signatures",
        ),
    ] = False
    part_size: Annotated[
        int,
        option(
            "Part size",
            "Bytes that are written at a time; more where S3's 10,000 parts would not be enough. 40 MiB of parts are "
            "in memory at a time; a part that is bigger is read twice instead.",
            unit="bytes",
            ge=SMALLEST,
            le=5 << 30,
            group="advanced",
        ),
    ] = DEFAULT_SIZE

    max_blob_size: Annotated[
        int,
        option(
            "Largest blob",
            "Bytes that one blob of the source may have. An image that states more is refused.",
            unit="bytes",
            ge=1,
            le=5 << 40,
            group="advanced",
        ),
    ] = 1 << 40

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InvalidInput(f"unknown archive format {self.format!r}", hint=f"known are {', '.join(FORMATS)}")
        if self.max_size < 0 or self.part_size < SMALLEST:
            raise InvalidInput(f"a part has {SMALLEST} bytes or more, and a volume more than none")
