"""Files as one gzip layer: what is given to be packed, in the order in which a layer has it, and the layer. The same
files give the same layer on every machine and every Python.

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
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence

from msgspec import Struct

from oci.digest import READ_SIZE, Chunk, Digest, digest_of, verified
from oci.errors import CancelToken, InvalidInput
from oci.files import tar
from oci.files.deflate import compress, store
from oci.store import BlobReader, reader_of
from oci.units import some_of

DEFAULT_EXCLUSIONS = (".git",)
BUNDLE_FOLDER = ".imgpkg"
LOCK_FILE = f"{BUNDLE_FOLDER}/images.yml"

COMPRESSED_LIMIT = 32 << 20
"""Bytes of tar. It is part of the format: another value gives other digests."""

_OWNER = 0o700
_ALL_BITS = 0o7777
_DELETION = ".wh."
_NAMED = 10
"""Paths that an error names."""


class FileEntry(Struct, frozen=True):
    """`name` is the path inside the layer, `.` for a folder that was given itself; `path` is where it is read from.
    `size` in bytes and `changed`, nanoseconds since 1970, are those of the file when it was found."""

    name: str
    path: str
    mode: int
    size: int = 0
    is_folder: bool = False
    changed: int = 0


def walk(
    paths: Sequence[str], *, exclusions: Collection[str] = DEFAULT_EXCLUSIONS, preserve_permissions: bool = False
) -> tuple[FileEntry, ...]:
    """Returns every folder before its content, names in the order of their bytes, for each of `paths` in turn.

    An exclusion is a whole path inside the layer; what is below an excluded folder is left out with it. Only the
    owner's permissions are kept, and folders are 0700, unless `preserve_permissions`. A path that is a symbolic link
    is followed; inside folders anything but files and folders raises InvalidInput, as does what can't be read.
    """
    excluded = frozenset(exclusions)
    mask = _ALL_BITS if preserve_permissions else _OWNER
    return tuple(entry for path in paths for entry in _entries_of(path, excluded, mask))


def check_duplicates(entries: Iterable[FileEntry]) -> None:
    """Raises InvalidInput when two of the given paths bring a file or folder of the same name."""
    counts = Counter(entry.name for entry in entries if entry.name != ".")
    repeated = sorted(name for name, count in counts.items() if count > 1)
    if repeated:
        raise InvalidInput(
            f"Found duplicate paths: {some_of(repeated, _NAMED)}", hint="leave one of them out, or exclude it by name"
        )


def check_bundle(entries: Sequence[FileEntry]) -> None:
    """Raises InvalidInput unless the files are one bundle: one `.imgpkg` folder, directly in one of the given folders,
    with `images.yml` in it. What is excluded counts for nothing."""
    named = ((entry, os.path.abspath(entry.path) if entry.name == "." else entry.name) for entry in entries)
    folders = [entry for entry, name in named if entry.is_folder and os.path.basename(name) == BUNDLE_FOLDER]
    if not folders:
        raise InvalidInput(
            f"This directory is not a bundle. It is missing {LOCK_FILE}",
            hint="make that file, or push it as a plain image with -i",
        )
    if len(folders) > 1:
        paths = [os.path.abspath(entry.path) for entry in folders]
        raise InvalidInput(
            f"This directory contains multiple bundle definitions. Only a single instance of {LOCK_FILE} can be "
            f"provided and instead these were provided {some_of(paths, _NAMED)}",
            hint="exclude the others by name: --file-exclusion PATH",
        )
    if folders[0].name != BUNDLE_FOLDER:
        parents = [entry.path for entry in entries if entry.name == "."]
        raise InvalidInput(
            f"Expected '{BUNDLE_FOLDER}' directory, to be a direct child of one of: {some_of(parents, _NAMED)}; was "
            f"{os.path.abspath(folders[0].path)}",
            hint="give the folder that holds it",
        )
    if not any(entry.name == LOCK_FILE and not entry.is_folder for entry in entries):
        raise InvalidInput(
            f"The bundle expected {LOCK_FILE} to exist, but it wasn't found in the path "
            f"{os.path.join(os.path.abspath(folders[0].path), 'images.yml')}",
            hint="make that file; it may list no images",
        )


def is_bundle(entries: Sequence[FileEntry]) -> bool:
    """Says whether the files could be pushed as a bundle."""
    try:
        check_bundle(entries)
    except InvalidInput:
        return False
    return True


def _entries_of(path: str, excluded: Collection[str], mask: int) -> Iterator[FileEntry]:
    if not path:
        raise InvalidInput("an empty path was given", hint="give a file or a folder")
    try:
        real = os.path.realpath(path, strict=True)
        status = os.stat(real)
        if not stat.S_ISDIR(status.st_mode):
            name = os.path.basename(os.path.abspath(path))
            if name not in excluded:
                yield _entry(name, real, status, mask)
            return
        yield _entry(".", path, status, mask)
        pending = [_listed(path, "", excluded)]  # no recursion: a folder may be deeper than Python's stack
        while pending:
            listed = next(pending[-1], None)
            if listed is None:
                pending.pop()
                continue
            entry = _entry(*listed, os.lstat(listed[1]), mask)
            yield entry
            if entry.is_folder:
                pending.append(_listed(entry.path, f"{entry.name}/", excluded))
    except OSError as error:
        raise InvalidInput(
            f"{error.filename or path} can't be read: {(error.strerror or str(error)).lower()}", hint="check the path"
        ) from error


def _listed(folder: str, prefix: str, excluded: Collection[str]) -> Iterator[tuple[str, str]]:
    for base in sorted(os.listdir(folder), key=os.fsencode):
        name = prefix + base
        if name not in excluded:
            yield name, os.path.join(folder, base)


def _entry(name: str, path: str, status: os.stat_result, mask: int) -> FileEntry:
    is_folder = stat.S_ISDIR(status.st_mode)
    if not is_folder and not stat.S_ISREG(status.st_mode):
        raise InvalidInput(
            f"Expected file '{path}' to be a regular file",
            hint="links, sockets and devices can't be packed: exclude it by name",
        )
    if name.rpartition("/")[2].startswith(_DELETION):
        raise InvalidInput(
            f"{path} can't be packed: in a layer, names that start with {_DELETION} mean that a file is deleted",
            hint="rename it, or exclude it by name",
        )
    mode = _OWNER if is_folder and mask != _ALL_BITS else status.st_mode & mask
    if is_folder:
        return FileEntry(name, path, mode, is_folder=True)
    return FileEntry(name, path, mode, status.st_size, changed=status.st_mtime_ns)


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
    tar_size = len(tar.END) + sum(len(_header(entry)) + entry.size + -entry.size % tar.BLOCK for entry in entries)
    diff, whole = hashlib.sha256(), hashlib.sha256()
    if tar_size <= compressed_limit:
        data = b"".join(compress(_hashed(_tar(entries, token), diff)))
        return PackedLayer(_digest(diff), digest_of(data), len(data), reader_of(data))
    size = sum(map(len, _hashed(store(_hashed(_tar(entries, token), diff)), whole)))
    layer = _digest(whole), size

    def again(offset: int) -> Iterator[Chunk]:
        chunks = store(_tar(entries, token))
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
