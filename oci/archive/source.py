"""An archive as a source: manifests from its description, blobs by range. It never asks where its content came from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oci.archive.index import Contents, read_contents
from oci.archive.open import ByteReader, Stretch
from oci.descriptor import Descriptor
from oci.digest import Chunk, Digest, is_digest
from oci.errors import CancelToken, IntegrityError, InvalidManifest, NotFound
from oci.files.tar import Members
from oci.manifest import Manifest
from oci.meter import Meter
from oci.reference import ArchiveName
from oci.store import read_range

_NOT_IN_TAR = (
    "file {file} not found in tar (hint: This may be because when copying to a tarball, the "
    "--include-non-distributable-layers flag should have been provided.)"
)


class ArchiveSource:
    """See oci.store for what each method of a Source promises. Opening it reads its description, and nothing else."""

    def __init__(
        self, name: ArchiveName, readers: Sequence[ByteReader], *, side: str, meter: Meter, cancel: CancelToken
    ) -> None:
        self.name = name
        self.readers = tuple(readers)
        self._side = side
        self._meter = meter
        self._cancel = cancel
        self.contents: Contents = read_contents(readers)
        self._tags = {entry.tag: entry.digest for entry in self.contents.entries if entry.tag}
        self._referrers: dict[Digest, list[Manifest]] = {}
        for manifest in self.contents.manifests.values():
            if manifest.subject:
                self._referrers.setdefault(manifest.subject.digest, []).append(manifest)

    def head_manifest(self, identifier: str) -> Descriptor | None:
        manifest = self._manifest(identifier)
        return Descriptor(manifest.media_type, manifest.digest, manifest.size) if manifest else None

    def get_manifest(self, identifier: str) -> Manifest:
        manifest = self._manifest(identifier)
        if manifest is None:
            raise self.lacks(identifier, "looking for the manifest")
        return manifest

    def read_blob(self, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[Chunk]:
        return read_range(self._chunks, blob, offset, length, self._where(), in_file=self.name.is_local)

    def blob_size(self, digest: Digest) -> int | None:
        if digest in self.contents.configs:
            return len(self.contents.configs[digest])
        stretch = self.contents.blobs.get(digest)
        return stretch.size if stretch else None

    def tags(self) -> Iterator[str]:
        return iter(sorted(self._tags))

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        referrers = self._referrers.get(subject, ())
        return tuple(
            manifest.descriptor for manifest in referrers if artifact_type in ("", manifest.descriptor.artifact_type)
        )

    def lacks(self, subject: str, operation: str) -> NotFound:
        """Returns the error for what isn't there, which says why."""
        note = self.contents.transship_json
        foreign = (layer for manifest in self.contents.manifests.values() for layer in manifest.layers)
        hint, sentence = "make the archive again, or verify this one with `archive verify`", ""
        if subject in note.required:
            hint = f"the archive is a delta to {note.base}: import that one first"
        elif any(layer.digest == subject and not layer.distributable for layer in foreign):
            hint = "the archive was made without --include-non-distributable-layers: leave it out here as well"
            sentence = _NOT_IN_TAR.format(file=f"{subject.replace(':', '-')}.tar.gz")
        problem = NotFound(
            "isn't in the archive",
            side=self._side,
            store=str(self.name),
            subject=subject,
            operation=operation,
            status=404,
            code="BLOB_UNKNOWN",
            hint=hint,
        )
        problem.sentence = sentence or problem.sentence
        return problem

    def has_all(self, manifest: Manifest) -> bool:
        return all(self.blob_size(blob.digest) is not None for blob in manifest.blobs)

    def close(self) -> None:
        for reader in self.readers:
            reader.close()

    def _manifest(self, identifier: str) -> Manifest | None:
        digest = Digest(identifier) if is_digest(identifier) else self._tags.get(identifier)
        return self.contents.manifests.get(digest) if digest else None

    def _chunks(self, blob: Descriptor, offset: int, end: int) -> Iterator[bytes]:
        inline, stretch = self.contents.configs.get(blob.digest), self.contents.blobs.get(blob.digest)
        if inline is None and stretch is None:
            raise self.lacks(blob.digest, "reading the blob")
        size = self.blob_size(blob.digest)
        if size != blob.size:
            raise IntegrityError(f"{self._where()}: {blob.digest} has {size} bytes in the archive, not {blob.size}")
        if inline is not None:
            yield inline[offset:end]
        elif stretch is not None:
            for chunk in self._read(blob, stretch, offset, end):
                self._cancel.check()
                self._meter.read(len(chunk))
                yield chunk

    def _read(self, blob: Descriptor, stretch: Stretch, offset: int, end: int) -> Iterator[bytes]:
        """Reads the header that hasn't been checked yet together with the bytes: in S3 each read is a request. Where a
        member should be by the sizes of those before it, there must be one of its size."""
        if stretch.header < 0 or offset:
            yield from stretch.reader.read(stretch.offset + offset, end - offset)
            return
        head, length = b"", stretch.offset - stretch.header
        for chunk in stretch.reader.read(stretch.header, length + end):
            data = chunk
            if len(head) < length:
                head, data = head + chunk[: length - len(head)], chunk[length - len(head) :]
                if len(head) == length:
                    try:
                        member = next(iter(Members(iter([head]))), None)
                    except InvalidManifest:
                        member = None
                    if member is None or member.size != blob.size:
                        message = f"the archive is damaged where {blob.digest} should begin"
                        raise IntegrityError(f"{self._where()}: {message}")
            if data:
                yield data

    def _where(self) -> str:
        return f"{self._side} {self.name}".lstrip()


class EmptyArchive(ArchiveSource):
    """An archive that is to be written: it has nothing so far."""

    def __init__(self, name: ArchiveName) -> None:
        super().__init__(name, (), side="", meter=Meter(), cancel=CancelToken())

    def lacks(self, subject: str, operation: str) -> NotFound:
        del operation
        return NotFound("nothing is there yet", store=str(self.name), subject=subject)
