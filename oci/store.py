"""The two Protocols everything is copied between. A registry's repository, an image-layout folder and an archive
are stores alike; what is copied doesn't know which."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from typing import Protocol, TypeAlias

from oci.descriptor import Descriptor
from oci.digest import Chunk, Digest, digest_of, verified
from oci.manifest import EMPTY_CONFIG, Manifest
from oci.reference import Repository, StoreName

BlobReader: TypeAlias = Callable[[int], Iterator[Chunk]]
"""Opens a blob at an offset. From offset 0 the stream is verified (size and digest) before its last chunk is given."""


class BlobOutcome(Enum):
    """How a blob came to be at a destination."""

    WRITTEN = "written"
    MOUNTED = "mounted"
    SKIPPED = "skipped"


class Source(Protocol):
    """Reads manifests and blobs of one repository. Every method raises StoreError (NotFound among them), Cancelled,
    or, for bytes that aren't the promised ones, IntegrityError. Safe from any thread."""

    @property
    def name(self) -> StoreName: ...

    def head_manifest(self, identifier: str) -> Descriptor | None:
        """Digest, size and media type of what a tag or digest names; None when there is no such manifest.
        The descriptor has nothing but these three."""

    def get_manifest(self, identifier: str) -> Manifest:
        """Returns the manifest by tag or digest; asked by digest, its bytes are verified."""

    def read_blob(self, blob: Descriptor, offset: int = 0, length: int | None = None) -> Iterator[Chunk]:
        """Streams a blob from `offset`, to its end or for `length` bytes. The whole (offset 0, no length) is verified.
        A broken read is continued inside; only `blob.digest`, `blob.size` and `blob.urls` are looked at."""

    def blob_size(self, digest: Digest) -> int | None:
        """Returns the size of a blob in bytes, without reading it; None when there is no such blob."""

    def tags(self) -> Iterator[str]:
        """Yields all tags, in the order the store gives them; NotFound when there is no such repository."""

    def referrers(self, subject: Digest, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """Manifests whose `subject` is the given one; empty when there are none."""


class Destination(Source, Protocol):
    """Writes as well. Writing what is there already is no error."""

    def put_blob(
        self, blob: Descriptor, read: BlobReader, *, mount_from: Sequence[Repository] = (), fresh: bool = False
    ) -> BlobOutcome:
        """Makes the blob be there: skipped when it is, mounted from a repository of the same registry when one of
        `mount_from` has it, else written from `read`. `fresh` says the repository is known to be empty: nothing is
        asked, the upload starts at once."""

    def put_manifest(self, manifest: Manifest, tag: str = "") -> None:
        """Pushes the received bytes under `tag`, or by digest when it is empty. Everything it lists must be there.
        The store's answer is checked against the digest. A `subject` is made known to the store's referrers."""

    def delete_manifest(self, digest: Digest) -> None: ...

    def delete_tag(self, tag: str) -> None:
        """Removes the name and nothing else, or raises Refused where the store can't."""

    @property
    def has_referrers_api(self) -> bool | None:
        """Returns None as long as nothing has asked a registry for referrers; False where an index lists them."""

    def all_tags(self) -> Iterator[str]:
        """As `tags`, for callers that delete what isn't named: a list cut short without a Link is continued, and names
        that are no tags by grammar are given, too."""

    def all_referrers(self, subject: Digest) -> tuple[Descriptor, ...]:
        """As `referrers`, for callers that delete what isn't listed: a list that is denied isn't taken for empty."""

    def listed(self) -> tuple[Digest, ...]:
        """Returns every manifest that the store lists by digest; only a layout folder has such a list, its
        index.json."""

    def sweep(self, candidates: Collection[Digest]) -> int | None:
        """Deletes those of `candidates` that no manifest lists, and returns the bytes that this made free. None for a
        registry, which collects garbage itself."""


def found_manifest(source: Source, identifier: str) -> Descriptor:
    """As `Source.head_manifest` of what must be there. Raises NotFound with what the store says to a GET, for an answer
    to a HEAD has no words, and some registries refuse one."""
    return source.head_manifest(identifier) or source.get_manifest(identifier).descriptor


def read_range(
    chunks: Callable[[Descriptor, int, int], Iterator[Chunk]],
    blob: Descriptor,
    offset: int,
    length: int | None,
    where: str,
    *,
    in_file: bool,
) -> Iterator[Chunk]:
    """Implements `Source.read_blob`: `chunks` yields the bytes of a blob from one position to another, out of a file or
    an object store."""
    if offset == 0 and length is None:
        return verified(chunks(blob, 0, blob.size), blob.digest, blob.size, where, in_file=in_file)
    return chunks(blob, offset, blob.size if length is None else min(blob.size, offset + length))


def reader_of(data: bytes) -> BlobReader:
    """A BlobReader of bytes that are in memory and proven already."""
    return lambda offset: iter((data[offset:],))


def push_artifact(destination: Destination, manifest: Manifest, data: bytes, tag: str = "") -> None:
    """Pushes an artifact of one layer, `data`, as `artifact_manifest` makes it: under `tag`, or by digest."""
    contents = {digest_of(content): content for content in (EMPTY_CONFIG, data)}
    for blob in manifest.blobs:
        destination.put_blob(blob, reader_of(contents[blob.digest]))
    destination.put_manifest(manifest, tag)
