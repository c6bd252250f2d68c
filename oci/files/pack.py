"""Files as one gzip layer: the same files give the same layer on every machine and every Python.

Up to `COMPRESSED_LIMIT` bytes of tar, the layer is byte for byte imgpkg's: compressed as Go's BestSpeed does. That is
done in Python, a few MB a second. A bigger tar is stored: gzip without compression, as fast as the disk. The price is
that it takes as much room in the registry as on the disk; it reads like any other gzip, and the layer's diff ID is
imgpkg's all the same. zlib would compress it quickly, but its bytes depend on which zlib a Python was built with, and
zstandard's on its version: a layer that was pushed from one machine would be pushed again from the next.

What fits under the limit is held in memory compressed. What doesn't is read twice, for the digests and for the upload,
and held nowhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from oci.cancel import CancelToken
from oci.digest import READ_SIZE, Chunk, Digest, digest_of, verified
from oci.errors import InvalidInput
from oci.files import tar
from oci.files.deflate import compress
from oci.files.walk import FileEntry
from oci.store import BlobReader

COMPRESSED_LIMIT = 32 << 20
"""Bytes of tar. It is part of the format: another value gives other digests."""

_STORED_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_STORED_BLOCK = 0xFFFF
_STORED_OVERHEAD = 5


class PackedLayer(Struct, frozen=True):
    """A gzip layer: `diff_id` is the digest of its tar, `digest` and `size` (in bytes) those of the layer itself.
    `open` reads it as often as needed; it raises InvalidInput when a file was changed meanwhile."""

    diff_id: Digest
    digest: Digest
    size: int
    open: BlobReader


def pack(
    entries: Sequence[FileEntry], *, cancel: CancelToken | None = None, compressed_limit: int = COMPRESSED_LIMIT
) -> PackedLayer:
    """Reads all files once. Raises InvalidInput for one that was changed since it was found, or can't be read."""
    token = cancel or CancelToken()
    size = len(tar.END) + sum(len(_header(entry)) + entry.size + -entry.size % tar.BLOCK for entry in entries)
    diff, whole = hashlib.sha256(), hashlib.sha256()
    if size <= compressed_limit:
        data = b"".join(compress(_hashed(_tar(entries, token), diff)))
        return PackedLayer(_digest(diff), digest_of(data), len(data), lambda offset: iter((data[offset:],)))
    for chunk in _stored(_hashed(_tar(entries, token), diff)):
        whole.update(chunk)
    blocks = -(-size // _STORED_BLOCK) + 1
    layer = _digest(whole), len(_STORED_HEADER) + size + blocks * _STORED_OVERHEAD + 8

    def again(offset: int) -> Iterator[Chunk]:
        chunks = _stored(_tar(entries, token))
        return _skipped(chunks, offset) if offset else verified(chunks, *layer, "the packed files")

    return PackedLayer(_digest(diff), *layer, again)


def _header(entry: FileEntry) -> bytes:
    typeflag = tar.FOLDER if entry.is_folder else tar.REGULAR
    return tar.header(entry.name, mode=entry.mode, size=entry.size, typeflag=typeflag)


def _tar(entries: Iterable[FileEntry], cancel: CancelToken) -> Iterator[bytes]:
    for entry in entries:
        cancel.check()
        yield _header(entry)
        if not entry.is_folder:
            for chunk in _content(entry):
                cancel.check()
                yield chunk
            yield tar.padding(entry.size)
    yield tar.END


def _content(entry: FileEntry) -> Iterator[bytes]:
    """Yields all of one file, which must be the one that was found: its size stands in the header already."""
    try:
        handle = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb", buffering=0) as file:
            _check_unchanged(entry, os.fstat(handle))
            remaining = entry.size
            while remaining and (chunk := file.read(min(READ_SIZE, remaining))):
                remaining -= len(chunk)
                yield chunk
            _check_unchanged(entry, os.fstat(handle), missing=remaining)
    except OSError as error:
        raise InvalidInput(
            f"{entry.path} can't be read: {(error.strerror or str(error)).lower()}", hint="check the file"
        ) from error


def _check_unchanged(entry: FileEntry, status: os.stat_result, *, missing: int = 0) -> None:
    now = (stat.S_ISREG(status.st_mode), status.st_size, status.st_mtime_ns)
    if missing or now != (True, entry.size, entry.changed):
        raise InvalidInput(
            f"{entry.path} was changed while it was being packed",
            hint="run it again when nothing writes to the files, or exclude this one",
        )


def _stored(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields a gzip stream of stored deflate blocks (RFC 1951, 3.2.4), as Go's compress/gzip frames it at
    NoCompression."""
    checksum = size = 0
    buffer = bytearray()
    yield _STORED_HEADER
    for chunk in chunks:
        checksum = zlib.crc32(chunk, checksum)
        size += len(chunk)
        buffer += chunk
        full = len(buffer) - len(buffer) % _STORED_BLOCK
        if full:
            head, view = _stored_head(_STORED_BLOCK), bytes(buffer[:full])
            del buffer[:full]
            yield b"".join(head + view[start : start + _STORED_BLOCK] for start in range(0, full, _STORED_BLOCK))
    if buffer:
        yield _stored_head(len(buffer)) + buffer
    yield _stored_head(0, last=True) + struct.pack("<II", checksum, size & 0xFFFF_FFFF)


def _stored_head(size: int, *, last: bool = False) -> bytes:
    return struct.pack("<BHH", last, size, size ^ 0xFFFF)


def _skipped(chunks: Iterator[bytes], offset: int) -> Iterator[bytes]:
    for chunk in chunks:
        if offset < len(chunk):
            yield chunk[offset:]
        offset = max(0, offset - len(chunk))


def _hashed(chunks: Iterable[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def _digest(digest: hashlib._Hash) -> Digest:
    return Digest(f"sha256:{digest.hexdigest()}")
