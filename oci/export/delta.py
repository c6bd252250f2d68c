"""What the other side of an air gap has already, so that a delta can leave it out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from oci.archive.index import Contents
from oci.archive.open import in_object_store
from oci.digest import Digest, digest_of
from oci.errors import InvalidInput, InvalidReference
from oci.output import read_named
from oci.reference import ARCHIVE_PREFIX, LAYOUT_PREFIX, ArchiveName, StoreName, parse_store
from oci.relocation.plan import Plan, PlannedBlob
from oci.relocation.session import Session

_LIST_LIMIT = 64 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MAGIC = slice(257, 262)
_HEAD = 512


class DeltaBase(Struct, frozen=True):
    """What a delta may leave out: `has` returns those of the given blobs that the base named `name` has."""

    name: str = ""
    has: Callable[[Sequence[PlannedBlob]], Iterable[Digest]] = lambda _: ()

    def among(self, blobs: Iterable[PlannedBlob], plan: Plan) -> frozenset[Digest]:
        """Never the layers of bundles: an import has to read them to see what else there must be. Configs
        aren't even asked for: they say what is a bundle."""
        needed = {digest for manifest in plan.manifests if manifest.is_bundle for digest in manifest.blobs}
        return frozenset(self.has([blob for blob in blobs if blob.digest not in needed]))


def known_blobs(session: Session, where: str, plan: Plan) -> DeltaBase:
    """`where` is an archive, a repository or layout folder, or a file in which digests stand, of blobs or of images.
    Raises InvalidInput for anything else."""
    location = where.removeprefix(ARCHIVE_PREFIX)
    if in_object_store(location) or (
        os.path.isfile(location) and _read(location, _HEAD, head=True)[_MAGIC] == b"ustar"
    ):
        return _of_archive(session, location)
    if os.path.isfile(where):
        return _of_list(where, plan)
    if os.path.isfile(os.path.join(where, "index.json")):
        where = f"{LAYOUT_PREFIX}{where}"
    try:
        if "/" not in where or where.endswith(".tar"):
            raise InvalidReference(f"{where!r} is no repository of a user")  # noqa: TRY301 - replaced below
        return _of_store(session, parse_store(where))
    except InvalidReference as error:
        raise InvalidInput(
            f"{where!r} is neither an archive, nor a repository, nor a file with digests",
            hint="check the path; a repository is written without a tag: REGISTRY/REPOSITORY",
        ) from error


def _read(path: str, limit: int, *, head: bool = False) -> bytes:
    return read_named(path, "reading what the other side has", limit=limit, head=head)


def _of_archive(session: Session, location: str) -> DeltaBase:
    """Returns what an archive has, and what it requires of the other side."""
    contents = session.archive(ArchiveName.of(location), "destination").contents
    digests = {*contents.blobs, *contents.configs, *(digest for digest, _ in contents.transship_json.requires)}
    name = location.rpartition("/")[2]
    return DeltaBase(
        f"{name} ({_identity(contents)})", lambda blobs: [blob.digest for blob in blobs if blob.digest in digests]
    )


def _identity(contents: Contents) -> Digest:
    """Tells one archive from another by the images that are in it."""
    return digest_of("\n".join(sorted(contents.manifests)).encode())


def _of_list(path: str, plan: Plan) -> DeltaBase:
    listed = _read(path, _LIST_LIMIT).decode(errors="replace")
    digests = {Digest(text) for text in _DIGEST.findall(listed)}
    if not digests:
        raise InvalidInput(f"{path}: there is no digest in it", hint="give a lock file, or a list of digests")
    for manifest in reversed(plan.manifests):  # children come before what they belong to
        if manifest.digest in digests:
            digests.update((*manifest.blobs, *manifest.children))
    return DeltaBase(os.path.basename(path), lambda blobs: [blob.digest for blob in blobs if blob.digest in digests])


def _of_store(session: Session, name: StoreName) -> DeltaBase:
    store = session.destination(name)

    def has(blobs: Sequence[PlannedBlob]) -> Iterable[Digest]:
        sizes = session.workers.map(store.blob_size, [blob.digest for blob in blobs])
        return [blob.digest for blob, size in zip(blobs, sizes, strict=True) if size == blob.size]

    return DeltaBase(str(name), has)
