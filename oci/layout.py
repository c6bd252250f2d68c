"""An OCI image-layout folder as a store (image-spec, image-layout.md): the registry that needs no server."""

from __future__ import annotations

import errno
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import BinaryIO

from oci.cancel import CancelToken
from oci.descriptor import Descriptor
from oci.digest import Digest, hex_of, is_digest, parse_digest, verified
from oci.errors import IntegrityError, InvalidManifest, NotFound, Refused, StoreError, Unavailable
from oci.layout_index import LayoutIndex
from oci.manifest import MANIFEST_LIMIT, Manifest, parse_manifest
from oci.meter import Meter
from oci.reference import LayoutFolder, Repository
from oci.store import BlobOutcome, BlobReader

READ_SIZE = 1 << 20
"""Bytes read at a time."""

ABANDONED_AFTER = 24 * 3600.0
"""Seconds after which a partial file is nobody's any more."""

_PARTIAL = re.compile(r"\.[0-9a-f]{64,128}\.[0-9a-f]{16}\.partial")


class Layout:
    """See oci.store for what each method promises. The folder is made with the first write."""

    def __init__(self, name: LayoutFolder, *, side: str, meter: Meter, cancel: CancelToken) -> None:
        self._name = name
        self._side = side
        self._meter = meter
        self._cancel = cancel
        self._index = LayoutIndex(name, side=side)

    @property
    def name(self) -> LayoutFolder:
        return self._name

    def head_manifest(self, identifier: str) -> Descriptor | None:
        try:
            found = self._described(identifier)
            if found.media_type and found.size:
                self._open(found.digest).close()
                return found
            manifest = self.get_manifest(found.digest)
        except NotFound:
            return None
        return Descriptor(manifest.media_type, manifest.digest, manifest.size)

    def get_manifest(self, identifier: str) -> Manifest:
        found = self._described(identifier)
        with self._open(found.digest) as file:
            raw = file.read(MANIFEST_LIMIT + 1)
        self._meter.read(len(raw))
        try:
            manifest = parse_manifest(raw, found.media_type)
        except InvalidManifest as error:
            raise InvalidManifest(f"{self._side} {self._name}@{found.digest}: {error.message}".strip()) from error
        if manifest.digest != found.digest:
            raise IntegrityError(f"{self._side} {self._name}: {found.digest} holds bytes of {manifest.digest}".strip())
        return manifest

    def read_blob(self, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        end = blob.size if length is None else min(blob.size, offset + length)
        chunks = self._chunks(blob, offset, end)
        if offset == 0 and end == blob.size:
            return verified(chunks, blob.digest, blob.size, f"{self._side} {self._name}".strip())
        return chunks

    def blob_size(self, digest: Digest) -> int | None:
        try:
            return os.lstat(self._path(digest)).st_size
        except FileNotFoundError:
            return None

    def has_blob(self, digest: Digest) -> bool:
        return self.blob_size(digest) is not None

    def tags(self) -> Iterator[str]:
        return iter(sorted(self._index.tags()))

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """From the manifests that index.json lists: there, everything with a subject is listed."""
        found = {}
        for entry in self._index.entries():
            with suppress(NotFound):
                manifest = self.get_manifest(entry.digest)
                if manifest.subject is not None and manifest.subject.digest == subject:
                    found[manifest.digest] = manifest.descriptor
        listed = (one for _, one in sorted(found.items()))
        return tuple(one for one in listed if not artifact_type or one.artifact_type == artifact_type)

    def put_blob(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository] = (), fresh: bool = False
    ) -> BlobOutcome:
        del mount_from, fresh
        if self.blob_size(blob.digest) == blob.size:
            self._meter.blob("skipped", blob.size)
            return BlobOutcome.SKIPPED
        self._write(blob.digest, verified(read(0), blob.digest, blob.size, str(self._name), self._meter.sent))
        self._meter.blob("written", blob.size)
        return BlobOutcome.WRITTEN

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        """Listed in index.json under its tag, or, without one, when it has a subject: nobody would find it there."""
        self._check_complete(manifest)
        if self.blob_size(manifest.digest) != manifest.size:
            self._write(manifest.digest, iter((manifest.raw,)))
        if tag or manifest.subject is not None:
            listed = replace(manifest.descriptor, annotations={})
            with self._mapped("listing the manifest", manifest.digest):
                self._index.put(listed, tag)

    def delete_manifest(self, digest: Digest) -> None:
        with self._mapped("deleting the manifest", digest):
            self._index.remove_digest(digest)
            with suppress(FileNotFoundError):
                os.unlink(self._path(digest))

    def delete_tag(self, tag: str) -> None:
        with self._mapped("deleting the tag", tag):
            self._index.remove_tag(tag)

    def _described(self, identifier: str) -> Descriptor:
        if is_digest(identifier):
            digest = parse_digest(identifier)
            known = next((one for one in self._index.entries() if one.digest == digest), None)
            return known or Descriptor("", digest, 0)
        found = self._index.find(identifier)
        if found is None:
            raise self._missing(identifier, "looking for the manifest")
        return found

    def _check_complete(self, manifest: Manifest) -> None:
        """What a manifest lists must be there first, as in a registry; what is non-distributable may be absent."""
        for blob in (*manifest.blobs, *manifest.children):
            if blob.distributable and self.blob_size(blob.digest) is None:
                raise Refused(
                    f"{blob.digest}, which the manifest lists, isn't there",
                    side=self._side,
                    store=str(self._name),
                    subject=str(manifest.digest),
                    operation="writing the manifest",
                    code="MANIFEST_BLOB_UNKNOWN",
                )

    def _path(self, digest: Digest) -> str:
        return os.path.join(self._name.path, "blobs", digest.partition(":")[0], hex_of(digest))

    def _open(self, digest: Digest) -> BinaryIO:
        """Never through a symbolic link: a layout is somebody else's folder."""
        with self._mapped("reading", digest):
            return os.fdopen(os.open(self._path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

    def _chunks(self, blob: Descriptor, offset: int, end: int) -> Iterator[bytes]:
        with self._open(blob.digest) as file, self._mapped("reading", blob.digest):
            file.seek(offset)
            while offset < end:
                self._cancel.check()
                chunk = file.read(min(READ_SIZE, end - offset))
                if not chunk:
                    return
                offset += len(chunk)
                self._meter.read(len(chunk))
                yield chunk
            if offset == blob.size and (extra := file.read(1)):
                yield extra

    def _write(self, digest: Digest, chunks: Iterator[bytes]) -> None:
        """Under a name that no reader looks at, and under the final one when all of it is proven and on disk."""
        final = self._path(digest)
        folder = os.path.dirname(final)
        partial = os.path.join(folder, f".{hex_of(digest)}.{secrets.token_hex(8)}.partial")
        with self._mapped("writing", digest):
            self._index.prepare()
            os.makedirs(folder, exist_ok=True)
            _sweep(folder)
        try:
            with self._mapped("writing", digest):
                file = open(partial, "xb")  # noqa: SIM115 - closed below, on every way out
            with file:
                for chunk in chunks:
                    self._cancel.check()
                    with self._mapped("writing", digest):
                        file.write(chunk)
                with self._mapped("writing", digest):
                    file.flush()
                    os.fsync(file.fileno())
            with self._mapped("writing", digest):
                os.replace(partial, final)
        except BaseException:
            with suppress(OSError):
                os.unlink(partial)
            raise

    @contextmanager
    def _mapped(self, operation: str, subject: str) -> Iterator[None]:
        """Errors of the operating system as ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise self._missing(subject, operation) from error
        except OSError as error:
            raise self._failed(error, operation, subject) from error

    def _missing(self, subject: str, operation: str) -> NotFound:
        return NotFound(
            "there is no such thing in this layout" if self._index.exists() else "this is no image layout",
            side=self._side,
            store=str(self._name),
            subject=subject,
            operation=operation,
            status=404,
            code="MANIFEST_UNKNOWN",
            hint="" if self._index.exists() else "an image layout is a folder with the files oci-layout and index.json",
        )

    def _failed(self, error: OSError, operation: str, subject: str) -> StoreError:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        kind = Unavailable if error.errno == errno.EIO else Refused
        return kind(
            "the disk is full" if full else os.strerror(error.errno or 0),
            side=self._side,
            store=str(self._name),
            subject=subject,
            operation=operation,
            hint="make room and run it again: what is there already is kept" if full else "check path and permissions",
        )


def _sweep(folder: str) -> None:
    """Removes partial files that a dead writer left behind long ago."""
    oldest = time.time() - ABANDONED_AFTER
    with os.scandir(folder) as entries:
        for entry in entries:
            if _PARTIAL.fullmatch(entry.name):
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < oldest:
                        os.unlink(entry.path)
