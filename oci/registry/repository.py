"""One repository of a registry, as a Source and a Destination."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import Refused, StoreError
from oci.manifest import Manifest
from oci.reference import Repository
from oci.registry import blobs, manifests, referrers, tags
from oci.registry.capabilities import Capabilities
from oci.registry.http.transport import Transport
from oci.registry.uploads import Uploader
from oci.store import BlobOutcome, BlobReader


class RegistryRepository:
    """See oci.store for what each method promises."""

    def __init__(self, transport: Transport, name: Repository, capabilities: Capabilities | None = None) -> None:
        self._transport = transport
        self._name = name
        self._capabilities = capabilities or Capabilities()
        self._uploader = Uploader(transport, name, self._capabilities)

    @property
    def name(self) -> Repository:
        return self._name

    def head_manifest(self, identifier: str) -> Descriptor | None:
        return manifests.head_manifest(self._transport, self._name, identifier)

    def get_manifest(self, identifier: str) -> Manifest:
        return manifests.get_manifest(self._transport, self._name, identifier)

    def read_blob(self, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        return blobs.read_blob(self._transport, self._name, blob, offset, length)

    def blob_size(self, digest: Digest) -> int | None:
        return blobs.blob_size(self._transport, self._name, digest)

    def tags(self) -> Iterator[str]:
        return tags.list_tags(self._transport, self._name)

    def all_tags(self) -> Iterator[str]:
        """As `tags`, for callers that delete what isn't named: a list cut short without a Link is continued."""
        return tags.list_tags(self._transport, self._name, exhaustive=True)

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        return referrers.list_referrers(self._transport, self._name, self._capabilities, subject, artifact_type)

    @property
    def has_referrers_api(self) -> bool | None:
        """None as long as nobody asked for referrers."""
        return self._capabilities.referrers_api

    def put_blob(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository] = (), fresh: bool = False
    ) -> BlobOutcome:
        return self._uploader.put(blob, read, mount_from=mount_from, fresh=fresh)

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        answer = manifests.put_manifest(self._transport, self._name, manifest, tag)
        if manifest.subject is not None and not answer.headers.get("oci-subject"):
            referrers.add_to_fallback(self._transport, self._name, manifest, manifest.subject.digest)

    def delete_manifest(self, digest: Digest) -> None:
        manifests.delete_manifest(self._transport, self._name, digest, "deleting the manifest")

    def delete_tag(self, tag: str) -> None:
        """Never falls back to deleting the manifest: other tags may show it."""
        try:
            manifests.delete_manifest(self._transport, self._name, tag, "deleting the tag")
        except StoreError as error:
            if error.status in (400, 405, 501):
                raise Refused(
                    f"this registry can't delete a tag alone: {error.message}",
                    side=error.side,
                    store=error.store,
                    subject=error.subject,
                    operation=error.operation,
                    status=error.status,
                    code=error.code,
                    hint="delete the manifest by its digest, with all its tags, if that is what you want",
                ) from error
            raise
