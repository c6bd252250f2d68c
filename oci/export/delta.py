"""What the other side of an air gap has already, so that a delta can leave it out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from oci.archive.open import in_object_store
from oci.digest import Digest, digest_of
from oci.errors import InvalidInput, InvalidReference
from oci.output import read_named
from oci.reference import ARCHIVE_PREFIX, LAYOUT_PREFIX, ArchiveName, parse_store
from oci.relocation.plan import Plan, PlannedBlob
from oci.relocation.session import Session

_LIST_LIMIT = 64 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_MAGIC = slice(257, 262)
_HEAD = 512


def known_blobs(
    session: Session, where: str, plan: Plan, blobs: Iterable[PlannedBlob]
) -> tuple[str, frozenset[Digest]]:
    """Returns the name of what the other side has, and which of the blobs are in it and may be left out. `where` is an
    archive, a repository or layout folder, or a file in which digests stand, of blobs or of images.

    Never the layers of bundles: an import has to read them to see what else there must be. Raises InvalidInput for
    anything else in `where`."""
    needed = {digest for manifest in plan.manifests if manifest.is_bundle for digest in manifest.blobs}
    optional = [blob for blob in blobs if blob.digest not in needed]
    location = where.removeprefix(ARCHIVE_PREFIX)
    if in_object_store(location) or (
        os.path.isfile(location) and _read(location, _HEAD, head=True)[_MAGIC] == b"ustar"
    ):
        contents = session.archive(ArchiveName.of(location), "destination").contents
        digests = {*contents.blobs, *contents.configs, *(digest for digest, _ in contents.transship_json.requires)}
        # One archive is told from another by the images that are in it.
        identity = digest_of("\n".join(sorted(contents.manifests)).encode())
        name = f"{location.rpartition('/')[2]} ({identity})"
        return name, frozenset(blob.digest for blob in optional if blob.digest in digests)
    if os.path.isfile(where):
        digests = _listed(where, plan)
        return os.path.basename(where), frozenset(blob.digest for blob in optional if blob.digest in digests)
    if os.path.isfile(os.path.join(where, "index.json")):
        where = f"{LAYOUT_PREFIX}{where}"
    try:
        if "/" not in where or where.endswith(".tar"):
            raise InvalidReference(f"{where!r} is no repository of a user")  # noqa: TRY301 - replaced below
        store = session.destination(parse_store(where))
    except InvalidReference as error:
        raise InvalidInput(
            f"{where!r} is neither an archive, nor a repository, nor a file with digests",
            hint="check the path; a repository is written without a tag: REGISTRY/REPOSITORY",
        ) from error
    sizes = session.workers.map(store.blob_size, [blob.digest for blob in optional])
    present = (blob.digest for blob, size in zip(optional, sizes, strict=True) if size == blob.size)
    return str(store.name), frozenset(present)


def _read(path: str, limit: int, *, head: bool = False) -> bytes:
    return read_named(path, "reading what the other side has", limit=limit, head=head)


def _listed(path: str, plan: Plan) -> set[Digest]:
    """Returns the digests in a file, with those of what the images among them consist of."""
    digests = {Digest(text) for text in _DIGEST.findall(_read(path, _LIST_LIMIT).decode(errors="replace"))}
    if not digests:
        raise InvalidInput(f"{path}: there is no digest in it", hint="give a lock file, or a list of digests")
    for manifest in reversed(plan.manifests):  # children come before what they belong to
        if manifest.digest in digests:
            digests.update((*manifest.blobs, *manifest.children))
    return digests
