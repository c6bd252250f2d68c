"""Where an archive's bytes are: a file on disk or an object in S3, read by range; and whether they are those that were
signed.

The modules that speak to S3 import boto3, which takes a while: they are imported when a location names an object.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from msgspec import Struct

from oci.archive.options import S3Options
from oci.digest import READ_SIZE
from oci.errors import Cancelled, CancelToken, IntegrityError, InvalidManifest, NotFound, NotSigned
from oci.files import tar
from oci.meter import Meter
from oci.output import open_regular, os_errors
from oci.reference import ArchiveName, bucket_and_key, in_object_store

if TYPE_CHECKING:
    from oci.archive.s3 import S3Reader


ByteReader: TypeAlias = "FileReader | S3Reader"
"""An archive that exists, with the same methods wherever it is. Safe from any thread."""

SIGNATURE_SUFFIX = ".sigstore.json"
SIGNATURE_LIMIT = 1 << 20
"""Bytes of a signature that are read; one with a certificate and a log entry has some thousand."""

Signed = Callable[[bytes, str], str]
"""Gives the SHA-256, in hex, that a signature says of the file at a location. Raises NotSigned where it isn't one of
the key that was asked for."""


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
        return f"file://{quote(os.fsencode(location))}"
    bucket, key = bucket_and_key(location)
    address = object_store(location).address
    return f"{address}/{bucket}/{quote(key)}" if address else f"https://{bucket}.s3.amazonaws.com/{quote(key)}"


class ArchiveProof:
    """The files of an archive, being read from end to end: beside each is a signature of its SHA-256.

    Who has signed is known before anything else is read. Whether the bytes are those that were signed is known when the
    last of them was read: that goes on in a thread while others read from the archive what they need, and what gives
    names waits for it.
    """

    def __init__(
        self, readers: Sequence[ByteReader], signed: Signed, object_store: Callable[[str], S3Options], *, side: str
    ) -> None:
        """Begins to read them. Raises NotSigned for a signature that is missing, or what `signed` raises."""
        self._readers = tuple(readers)
        self._signed = [
            signed(_signature_of(reader.location, object_store, side), reader.location) for reader in self._readers
        ]
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="signature")
        self._digests = self._pool.submit(lambda: [hash_of(reader, self._stop) for reader in self._readers])

    def check(self) -> None:
        """Waits until all was read. Raises NotSigned where it isn't what was signed, or what reading it raised."""
        for reader, signed, digest in zip(self._readers, self._signed, self._digests.result(), strict=True):
            if digest != signed:
                raise NotSigned(
                    f"it isn't what was signed: its SHA-256 is {digest}, and {signed} was signed",
                    store=reader.location,
                    operation="proving who signed it",
                    hint="it was changed or cut off, or the signature is that of another archive: get both again",
                )

    def close(self) -> None:
        """Reads no further."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


def hash_of(reader: ByteReader, stop: threading.Event | None = None) -> str:
    """Returns the SHA-256 of a file or object, in hex. Raises Cancelled when `stop` is set, and IntegrityError for a
    file that was changed since it was opened."""
    sha256 = hashlib.sha256()
    for chunk in reader.read(0, reader.size):
        if stop is not None and stop.is_set():
            raise Cancelled
        sha256.update(chunk)
    reader.check_unchanged()
    return sha256.hexdigest()


def _signature_of(location: str, object_store: Callable[[str], S3Options], side: str) -> bytes:
    place = f"{location}{SIGNATURE_SUFFIX}"
    problem = f"there is no signature beside it ({place.rpartition('/')[2]})"
    try:
        with closing(open_reader(place, object_store(location), side=side, cancel=CancelToken())) as reader:
            if 0 < reader.size <= SIGNATURE_LIMIT:
                return b"".join(reader.read(0, reader.size))
            problem = f"the signature beside it has {reader.size} bytes"
    except NotFound:
        pass
    hint = "bring it along with the archive, or ask for a signed archive: `copy --to-tar ... --sign KEY`"
    raise NotSigned(problem, store=location, operation="proving who signed it", hint=hint)
