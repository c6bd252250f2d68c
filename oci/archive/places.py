"""From a location to what reads or writes there. S3 is imported when somebody names it, for that takes a while."""

from __future__ import annotations

from collections.abc import Callable

from oci.archive.parts import SMALLEST
from oci.archive.s3settings import S3Settings
from oci.archive.storage import ByteReader, ByteWriter, FileReader, FileWriter
from oci.cancel import CancelToken
from oci.meter import Meter
from oci.reference import S3_PREFIX, ArchiveName


def in_object_store(location: str) -> bool:
    return location.startswith(S3_PREFIX)


def smallest_part(location: str) -> int:
    return SMALLEST if in_object_store(location) else 1


def open_reader(
    location: str, s3: S3Settings, *, side: str, cancel: CancelToken, meter: Meter | None = None
) -> ByteReader:
    if not in_object_store(location):
        return FileReader(location, side=side, cancel=cancel)
    from oci.archive.s3 import S3  # noqa: PLC0415
    from oci.archive.s3reader import S3Reader  # noqa: PLC0415

    return S3Reader(location, S3(s3, side=side, meter=meter), cancel=cancel)


def open_readers(
    name: ArchiveName,
    s3: Callable[[str], S3Settings],
    *,
    side: str,
    cancel: CancelToken,
    meter: Meter | None = None,
) -> tuple[ByteReader, ...]:
    """One for each volume; `s3` says how its object store is reached. None stays open when one can't be opened."""
    opened: list[ByteReader] = []
    try:
        for location in name.locations:
            reader = open_reader(location, s3(location), side=side, cancel=cancel, meter=meter)
            opened.append(reader)
    except BaseException:
        for reader in opened:
            reader.close()
        raise
    return tuple(opened)


def open_writer(location: str, s3: S3Settings, *, side: str = "destination", meter: Meter | None = None) -> ByteWriter:
    if not in_object_store(location):
        return FileWriter(location, side=side)
    from oci.archive.s3 import S3  # noqa: PLC0415
    from oci.archive.s3upload import S3Writer  # noqa: PLC0415

    return S3Writer(location, S3(s3, side=side, meter=meter))
