"""The proof of a signed archive: beside each of its files or objects is a signature of that one's SHA-256.

Who has signed is known before anything else is read. Whether the bytes are those that were signed is known when the
last of them was read: that goes on in a thread while others read from the archive what they need, and what gives names
waits for it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from oci.archive.open import ByteReader, open_reader
from oci.archive.s3_options import S3Options
from oci.cancel import CancelToken
from oci.errors import Cancelled, NotFound, NotSigned

SUFFIX = ".sigstore.json"
LIMIT = 1 << 20
"""Bytes of a signature that are read; one with a certificate and a log entry has some thousand."""

Signed = Callable[[bytes, str], str]
"""Gives the SHA-256, in hex, that a signature says of the file at a location. Raises NotSigned where it isn't one of
the key that was asked for."""


class ArchiveProof:
    """The files of an archive, being read from end to end."""

    def __init__(
        self, readers: Sequence[ByteReader], signed: Signed, object_store: Callable[[str], S3Options], *, side: str
    ) -> None:
        """Begins to read them. Raises NotSigned for a signature that is missing, or what `signed` raises."""
        self._readers = tuple(readers)
        self._signed = [
            signed(_beside(reader.location, object_store, side), reader.location) for reader in self._readers
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


def _beside(location: str, object_store: Callable[[str], S3Options], side: str) -> bytes:
    place = f"{location}{SUFFIX}"
    problem = f"there is no signature beside it ({place.rpartition('/')[2]})"
    try:
        with closing(open_reader(place, object_store(location), side=side, cancel=CancelToken())) as reader:
            if 0 < reader.size <= LIMIT:
                return b"".join(reader.read(0, reader.size))
            problem = f"the signature beside it has {reader.size} bytes"
    except NotFound:
        pass
    hint = "bring it along with the archive, or ask for a signed archive: `copy --to-tar ... --sign KEY`"
    raise NotSigned(problem, store=location, operation="proving who signed it", hint=hint)
