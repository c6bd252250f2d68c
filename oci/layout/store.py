"""An OCI image-layout folder as a store (image-spec, image-layout.md): the registry that needs no server.

A blob gets its final name when all of it is proven and on disk, a manifest its name in index.json after that: a writer
may be killed at any moment. Two things count as names for index.json: tags, and being a referrer, since a reader that
looks for referrers looks there. Everything else is found by its digest, as `blobs/ALGORITHM/HEX`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import FileIO
from typing import NoReturn

from msgspec.structs import replace

from oci.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from oci.digest import READ_SIZE, Chunk, Digest, Verifier, end_read, hex_of, is_digest, parse_digest, verified
from oci.errors import CancelToken, IntegrityError, InvalidManifest, NotFound, Refused
from oci.layout.index import LayoutIndex, described, used_digests
from oci.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from oci.meter import Meter
from oci.output import BY_UMASK, NOT_THERE, replacing, store_error, sync_folder
from oci.reference import LayoutFolder, Repository
from oci.store import BlobOutcome, BlobReader, read_range

ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a write after which a partial file counts as abandoned."""

_PARTIAL = re.compile(r"\.(index\.json|oci-layout|[0-9a-f]{64,128})\.\w+\.partial")


class LayoutStore:
    """See oci.store for what each method promises. The folder is made with the first write; reading changes nothing."""

    def __init__(self, name: LayoutFolder, *, side: str, meter: Meter, cancel: CancelToken) -> None:
        self.name = name
        self._side = side
        self._meter = meter
        self._cancel = cancel
        self._where = f"{side} {name}".lstrip()
        self._index = LayoutIndex(name, side=side)
        self._swept: set[str] = set()
        self._sound: dict[Digest, tuple[int, ...]] = {}
        self._referrers: dict[Digest, tuple[Digest | None, Descriptor]] = {}

    def head_manifest(self, identifier: str) -> Descriptor | None:
        """Returns None as well for a file that doesn't hold what its name promises: it has to be written again."""
        try:
            descriptor = self._described(identifier)
        except (NotFound, IntegrityError):
            return None
        try:
            if descriptor.media_type in (*MANIFEST_TYPES, *INDEX_TYPES):
                return descriptor if self._is_sound(descriptor.digest, descriptor.size) else None
            manifest = self.get_manifest(descriptor.digest)
        except (NotFound, IntegrityError):
            return None
        except InvalidManifest:
            strange = described(descriptor.digest, descriptor.media_type, self._bytes_of(descriptor.digest))
            if strange is None and not is_digest(identifier):
                raise
            return strange if strange and self._is_sound(strange.digest, strange.size) else None
        return Descriptor(manifest.media_type, manifest.digest, manifest.size)

    def get_manifest(self, identifier: str) -> Manifest:
        descriptor = self._described(identifier)
        raw = self._bytes_of(descriptor.digest)
        try:
            manifest = parse_manifest(raw, descriptor.media_type)
        except InvalidManifest as error:
            raise InvalidManifest(f"{self._where}@{descriptor.digest}: {error.message}", hint=error.hint) from error
        if manifest.digest != descriptor.digest:
            raise IntegrityError(
                f"{self._where}: the file of {descriptor.digest} has bytes of {manifest.digest}", in_file=True
            )
        return manifest

    def read_blob(self, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[Chunk]:
        return read_range(self._chunks, blob, offset, length, self._where, in_file=True)

    def blob_size(self, digest: Digest) -> int | None:
        try:
            status = os.lstat(self._path(digest))
        except OSError as error:
            if error.errno in NOT_THERE:
                return None
            self._fail(error, "looking for the blob", digest)
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def tags(self) -> Iterator[str]:
        with self._mapped("listing the tags", ""):
            if not self._index.exists():
                raise self._missing("listing the tags", "")
            return iter(sorted(self._index.tags()))

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """From the manifests in index.json and those under the tag that stands in for the referrers API."""
        fallback = f"{subject.partition(':')[0]}-{hex_of(subject)[:64]}"
        with self._mapped("listing the referrers", subject):
            listed = [*self._index.entries()]
            tagged = self._index.find(fallback)
        if tagged is not None and tagged.is_index:
            listed.extend(self.get_manifest(tagged.digest).children)
        referrers = []
        for digest in sorted({entry.digest for entry in listed if entry.is_manifest or entry.is_index}):
            if digest not in self._referrers:  # a digest always says the same, so each is read once
                try:
                    manifest = self.get_manifest(digest)
                except (NotFound, InvalidManifest):
                    continue
                self._referrers[digest] = (manifest.subject.digest if manifest.subject else None, manifest.descriptor)
            referred, referrer = self._referrers[digest]
            if self.blob_size(digest) is not None and referred == subject:
                referrers.append(referrer)
        return tuple(referrer for referrer in referrers if artifact_type in ("", referrer.artifact_type))

    all_referrers = referrers
    has_referrers_api = False
    """The index lists them."""

    all_tags = tags

    def listed(self) -> tuple[Digest, ...]:
        """Returns every manifest in index.json, with a name or without."""
        with self._mapped("listing the manifests", ""):
            return tuple(dict.fromkeys(entry.digest for entry in self._index.entries() if entry.names_manifest))

    def put_blob(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository] = (), fresh: bool = False
    ) -> BlobOutcome:
        """A file that is there is read and hashed once: a size doesn't prove bytes, and a spoilt file is replaced."""
        del mount_from, fresh
        if self._is_sound(blob.digest, blob.size):
            self._meter.blob("skipped", blob.size)
            return BlobOutcome.SKIPPED
        self._write(blob.digest, verified(read(0), blob.digest, blob.size, self._where, self._meter.sent))
        self._meter.blob("written", blob.size)
        return BlobOutcome.WRITTEN

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        """Listed in index.json under its tag, and when it has a subject: no reader would find it there otherwise."""
        if manifest.size > MANIFEST_LIMIT:  # it couldn't be read again
            message = (
                f"the manifest has {manifest.size} bytes, and a folder holds manifests of {MANIFEST_LIMIT} at most"
            )
            hint = "copy it to a registry, or into an archive of imgpkg's form"
            raise self._refused(message, manifest.digest, "writing the manifest", hint)
        # What a manifest lists must be there first, as in a registry; what is non-distributable may be absent.
        for blob in (*manifest.blobs, *manifest.children):
            if blob.distributable and self.blob_size(blob.digest) is None:
                message = f"{blob.digest}, which the manifest lists, isn't there"
                raise self._refused(message, manifest.digest, "writing the manifest", code="MANIFEST_BLOB_UNKNOWN")
        if not self._is_sound(manifest.digest, manifest.size):
            self._write(manifest.digest, iter((manifest.raw,)))
        if tag or manifest.subject is not None:
            listed = replace(manifest.descriptor, annotations={})
            with self._mapped("listing the manifest", manifest.digest):
                blobs = os.path.join(self.name.path, "blobs")
                for algorithm in os.listdir(blobs):  # what index.json is about to name survives a power failure
                    sync_folder(os.path.join(blobs, algorithm))
                self._index.put(listed, tag, by_digest=manifest.subject is not None)

    def delete_manifest(self, digest: Digest) -> None:
        with self._mapped("deleting the manifest", digest):
            self._check_own("deleting the manifest", digest)
            if self._index.exists():
                self._index.remove_digest(digest)
            os.unlink(self._path(digest))

    def delete_tag(self, tag: str) -> None:
        with self._mapped("deleting the tag", tag):
            if not self._index.exists() or not self._index.remove_tag(tag):
                raise self._missing("deleting the tag", tag)

    def sweep(self, candidates: Collection[Digest]) -> int:
        """Deletes blobs that no manifest in the folder lists: of `candidates`, and of those that were written more than
        a day ago, which a deletion that broke off may have left. Gives the bytes that this made free.

        A copy that finds such a blob there while it is being deleted is refused in the end, and can be made again.
        """
        with self._mapped("deleting unused blobs", ""):
            self._check_own("deleting unused blobs", "")
            root = os.path.join(self.name.path, "blobs")
            files = []
            for algorithm in os.listdir(root) if os.path.isdir(root) else ():
                with os.scandir(os.path.join(root, algorithm)) as entries:
                    files += [
                        (parse_digest(f"{algorithm}:{entry.name}"), entry.stat(follow_symlinks=False))
                        for entry in entries
                        if is_digest(f"{algorithm}:{entry.name}") and entry.is_file(follow_symlinks=False)
                    ]
            sizes = {digest: status.st_size for digest, status in files}
            used = used_digests(sizes, self._bytes_of, [entry.digest for entry in self._index.entries()])
            oldest = time.time() - ABANDONED_AFTER
            freed = 0
            for digest, status in files:
                self._cancel.check()
                if digest not in used and (digest in candidates or status.st_mtime < oldest):
                    os.unlink(self._path(digest))
                    freed += status.st_size
            return freed

    def _check_own(self, operation: str, subject: str) -> None:
        """Raises Refused where the blobs are elsewhere, by a link: layouts that share them know of no other."""
        root = os.path.join(self.name.path, "blobs")
        below = [os.path.join(root, name) for name in os.listdir(root)] if os.path.isdir(root) else []
        if link := next(filter(os.path.islink, (root, *below)), ""):
            hint = "delete it with the tool that keeps the blobs together"
            raise self._refused(f"{link} is a link: other layouts may use what is there", subject, operation, hint)

    def _described(self, identifier: str) -> Descriptor:
        """As index.json lists it; a digest that isn't listed comes without media type and size."""
        with self._mapped("looking for the manifest", identifier):
            if not self._index.exists():
                raise self._missing("looking for the manifest", identifier)
            if is_digest(identifier):
                digest = parse_digest(identifier)
                descriptor = self._index.entry(digest) or Descriptor("", digest, 0)
            elif (named := self._index.find(identifier)) is not None:
                descriptor = named
            else:
                raise self._missing("looking for the manifest", identifier)
        return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)

    def _is_sound(self, digest: Digest, size: int) -> bool:
        """Says whether the file of a blob or manifest has the bytes that its name promises. Read once, and again after
        a change that its size, times or inode show."""
        try:
            with self._open(digest) as file:
                status = os.fstat(file.fileno())
                mark = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                if status.st_size != size or self._sound.get(digest) == mark:
                    return status.st_size == size
                verifier = Verifier(digest, size)
                while chunk := file.read(READ_SIZE):
                    self._cancel.check()
                    verifier.update(chunk)
                verifier.finish()
        except (NotFound, Refused, IntegrityError):
            return False
        except OSError as error:
            self._fail(error, "reading again", digest)
        self._sound[digest] = mark
        return True

    def _path(self, digest: Digest) -> str:
        return os.path.join(self.name.path, "blobs", digest.partition(":")[0], hex_of(digest))

    def _open(self, digest: Digest) -> FileIO:
        """Regular files only, and never through a symbolic link: another user may own a layout folder. A fifo must not
        make us wait for its writer."""
        with self._mapped("reading", digest):
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            handle = os.open(self._path(digest), flags)
            if stat.S_ISREG(os.fstat(handle).st_mode):
                return open(handle, "rb", buffering=0)
            os.close(handle)
            raise OSError(errno.ELOOP, "")

    def _bytes_of(self, digest: Digest) -> bytes:
        """Returns a file as a manifest: one byte beyond the limit at most."""
        with self._open(digest) as file, self._mapped("reading", digest):
            raw = file.read(MANIFEST_LIMIT + 1)
        self._meter.read(len(raw))
        return raw

    def _chunks(self, blob: Descriptor, offset: int, end: int) -> Iterator[bytes]:
        with self._open(blob.digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size != blob.size:
                raise IntegrityError(
                    f"{self._where}: the file of {blob.digest} has {size} bytes, not {blob.size}", in_file=True
                )
            file.seek(offset)
            while offset < end:
                self._cancel.check()
                with self._mapped("reading", blob.digest):
                    chunk = file.read(min(READ_SIZE, end - offset))
                if not chunk:
                    raise IntegrityError(f"{self._where}: the file of {blob.digest} became shorter while being read")
                offset += len(chunk)
                self._meter.read(len(chunk))
                yield chunk

    def _write(self, digest: Digest, chunks: Iterator[Chunk]) -> None:
        """Under a name that no reader looks at, and under the final one when all of it is proven and on disk."""
        path = self._path(digest)
        folder = os.path.dirname(path)
        try:
            with self._mapped("writing", digest):
                self._index.prepare()
                os.makedirs(folder, exist_ok=True)
                self._sweep(folder)
                self._sweep(self.name.path)
                with replacing(path, BY_UMASK) as file:
                    for chunk in chunks:
                        self._cancel.check()
                        # A disk that is nearly full takes a part of it first. Nothing is left in a buffer, which would
                        # be flushed on closing, and fail again.
                        unwritten = memoryview(chunk)
                        while unwritten:
                            unwritten = unwritten[os.write(file.fileno(), unwritten) :]
        finally:
            end_read(chunks)

    def _sweep(self, folder: str) -> None:
        """Removes, once, the partial files that a dead writer left behind long ago."""
        if folder in self._swept:
            return
        self._swept.add(folder)
        oldest = time.time() - ABANDONED_AFTER
        with os.scandir(folder) as entries:
            for entry in entries:
                if _PARTIAL.fullmatch(entry.name):
                    with suppress(FileNotFoundError):
                        if entry.stat(follow_symlinks=False).st_mtime < oldest:
                            os.unlink(entry.path)

    @contextmanager
    def _mapped(self, operation: str, subject: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._fail(error, operation, subject)

    def _missing(self, operation: str, subject: str) -> NotFound:
        is_layout = self._index.exists()
        return NotFound(
            "there is no such thing in this layout" if is_layout else "this is no image layout",
            side=self._side,
            store=str(self.name),
            subject=subject,
            operation=operation,
            status=404,
            code="MANIFEST_UNKNOWN",
            hint="" if is_layout else "an image layout is a folder with the files oci-layout and index.json",
        )

    def _refused(self, message: str, subject: str, operation: str, hint: str = "", code: str = "") -> Refused:
        store = str(self.name)
        return Refused(
            message, side=self._side, store=store, subject=subject, operation=operation, code=code, hint=hint
        )

    def _fail(self, error: OSError, operation: str, subject: str) -> NoReturn:
        if error.errno in NOT_THERE:
            raise self._missing(operation, subject) from error
        if error.errno == errno.ELOOP:
            hint = "a blob that is a symbolic link isn't followed: copy it into the layout"
            raise self._refused("not a regular file", subject, operation, hint) from error
        raise store_error(error, side=self._side, store=str(self.name), subject=subject, operation=operation) from error
