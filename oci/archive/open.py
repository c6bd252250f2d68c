"""Where an archive's bytes are: a file on disk or an object in S3, read by range.

The modules that speak to S3 import boto3, which takes a while: they are imported when a location names an object.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from oci.archive.s3_options import S3Options
from oci.cancel import CancelToken
from oci.digest import READ_SIZE
from oci.errors import IntegrityError, InvalidManifest
from oci.files import tar
from oci.meter import Meter
from oci.output import open_regular, os_errors
from oci.reference import S3_PREFIX, ArchiveName

if TYPE_CHECKING:
    from oci.archive.s3 import S3Reader


ByteReader: TypeAlias = "FileReader | S3Reader"
"""An archive that exists, with the same methods wherever it is. Safe from any thread."""


class Stretch(Struct, frozen=True):
    """Where the bytes of a member are. `header` is the offset of its header where that wasn't read yet, else -1."""

    reader: ByteReader
    offset: int
    size: int
    header: int = -1

    @property
    def end(self) -> int:
        """Where the next member begins."""
        return self.offset + self.size + -self.size % tar.BLOCK

    def chunks(self, limit: int) -> Iterator[bytes]:
        """Raises InvalidManifest for a member of more than `limit` bytes, before it is read."""
        if self.size > limit:
            raise InvalidManifest(
                f"{self.reader.location}: a description of {self.size} bytes, and {limit} are the limit",
                hint="split what is in the archive into several archives",
            )
        return self.reader.read(self.offset, self.size)

    def bytes(self, limit: int) -> bytes:
        return b"".join(self.chunks(limit))


class FileReader:
    """A tarball on disk."""

    fingerprint = ""
    """Of the plan that the archive was written from; only an object store keeps that."""

    def __init__(self, path: str, *, side: str, cancel: CancelToken) -> None:
        self.location = path
        self._side = side
        self._cancel = cancel
        with os_errors(side=side, store=path, operation="opening", named=True):
            self._file = open_regular(path)
            self._mark = self._marked()
            self.size = self._mark[0]

    def read(self, offset: int, length: int) -> Iterator[bytes]:
        """Yields exactly `length` bytes. Raises StoreError, or IntegrityError where there are fewer."""
        end = offset + length
        while offset < end:
            self._cancel.check()
            with os_errors(side=self._side, store=self.location, operation="reading"):
                chunk = os.pread(self._file, min(READ_SIZE, end - offset), offset)
            if not chunk:
                raise IntegrityError(f"{self._side} {self.location}: ends at byte {offset}, where more was promised")
            offset += len(chunk)
            yield chunk

    def check_unchanged(self) -> None:
        """Raises IntegrityError when it was written to since it was opened."""
        with os_errors(side=self._side, store=self.location, operation="reading"):
            if self._marked() != self._mark:
                raise IntegrityError(f"{self._side} {self.location}: the file was changed while it was read")

    def fileno(self) -> int:
        return self._file

    def close(self) -> None:
        """A second time it does nothing: the number of the file may be that of another thread's connection by then."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def _marked(self) -> tuple[int, int, int]:
        """The time of the last change of status can't be set back by those who may write to the file."""
        status = os.fstat(self._file)
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def in_object_store(location: str) -> bool:
    return location.startswith(S3_PREFIX)


def open_reader(
    location: str, s3: S3Options, *, side: str, cancel: CancelToken, meter: Meter | None = None
) -> ByteReader:
    if not in_object_store(location):
        return FileReader(location, side=side, cancel=cancel)
    from oci.archive.s3 import S3, S3Reader  # noqa: PLC0415

    return S3Reader(location, S3(s3, side=side, meter=meter, cancel=cancel))


def open_readers(
    name: ArchiveName,
    s3: Callable[[str], S3Options],
    *,
    side: str,
    cancel: CancelToken,
    meter: Meter | None = None,
) -> tuple[ByteReader, ...]:
    """One for each volume; `s3` says how its object store is reached. None stays open when one can't be opened."""
    readers: list[ByteReader] = []
    with ExitStack() as opened:
        for location in name.locations:
            readers.append(open_reader(location, s3(location), side=side, cancel=cancel, meter=meter))
            opened.callback(readers[-1].close)
        opened.pop_all()
    return tuple(readers)


def link_to(location: str, object_store: Callable[[str], S3Options]) -> str:
    """Returns the address of an archive for a browser; what that shows depends on what its user may see there."""
    if not in_object_store(location):
        return f"file://{quote(location)}"
    bucket, _, key = location.removeprefix(S3_PREFIX).partition("/")
    address = object_store(location).address
    return f"{address}/{bucket}/{quote(key)}" if address else f"https://{bucket}.s3.amazonaws.com/{quote(key)}"
