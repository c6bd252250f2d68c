"""From a location to what reads or writes there. S3 is imported when somebody names it, for that takes a while."""

from __future__ import annotations

from oci.archive.s3settings import S3Settings
from oci.archive.storage import ByteReader, ByteWriter, FileReader, FileWriter
from oci.cancel import CancelToken
from oci.reference import S3_PREFIX


def open_reader(location: str, s3: S3Settings, *, side: str, cancel: CancelToken) -> ByteReader:
    if not location.startswith(S3_PREFIX):
        return FileReader(location, side=side, cancel=cancel)
    from oci.archive.s3 import S3  # noqa: PLC0415
    from oci.archive.s3reader import S3Reader  # noqa: PLC0415

    return S3Reader(location, S3(s3, side=side), cancel=cancel)


def open_writer(location: str, s3: S3Settings, *, side: str = "destination") -> ByteWriter:
    if not location.startswith(S3_PREFIX):
        return FileWriter(location, side=side)
    from oci.archive.s3 import S3  # noqa: PLC0415
    from oci.archive.s3upload import S3Writer  # noqa: PLC0415

    return S3Writer(location, S3(s3, side=side))
