"""What is in an archive, whether all of it is, and what makes two archives differ."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor

from msgspec import Struct

from oci.archive.source import ArchiveSource
from oci.bundle import image as bundle_image
from oci.descriptor import Descriptor
from oci.digest import Digest
from oci.errors import TransshipError
from oci.manifest import Manifest

BUNDLE, IMAGE, INDEX = "bundle", "image", "index"

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


class StoredImage(Struct, frozen=True, kw_only=True):
    """One image of an archive. `name` is the reference that its lock gave it, or where it was read from; `size` the
    bytes of all its blobs."""

    digest: Digest
    name: str
    tag: str
    kind: str
    is_root: bool
    blobs: int
    size: int


class ArchiveVerdict(Struct, frozen=True, kw_only=True):
    """What was looked at, in numbers and bytes, and what is wrong; `lacking` are the blobs that were left out on
    purpose, non-distributable ones and those a delta requires."""

    images: int
    blobs: int
    bytes_hashed: int
    lacking: int
    problems: tuple[str, ...] = ()


class ImageChange(Struct, frozen=True, kw_only=True):
    """An image that is in one of two archives only, or that has another digest under the same name."""

    what: str
    name: str
    before: str = ""
    after: str = ""


class ArchiveDifference(Struct, frozen=True, kw_only=True):
    """From one archive to another; blobs with their sizes in bytes."""

    images: tuple[ImageChange, ...]
    blobs_added: Mapping[Digest, int]
    blobs_removed: Mapping[Digest, int]


def images_of(archive: ArchiveSource) -> tuple[StoredImage, ...]:
    images = []
    for element in archive.contents.entries:
        manifest = archive.contents.manifests[element.digest]
        blobs = {blob.digest: blob.size for listed in _below(archive, manifest).values() for blob in listed.blobs}
        image = StoredImage(
            digest=element.digest,
            name=element.origin or element.reference,
            tag=element.tag,
            kind=INDEX if manifest.is_index else BUNDLE if bundle_image.is_bundle(archive, manifest) else IMAGE,
            is_root=element.is_root_bundle,
            blobs=len(blobs),
            size=sum(blobs.values()),
        )
        images.append(image)
    return tuple(images)


def blobs_of(archive: ArchiveSource) -> dict[Digest, int]:
    """The size in bytes of each blob that the manifests name and the archive has, as a member or as text, by digest."""
    sizes = {digest: archive.blob_size(digest) for digest in sorted(_named(archive))}
    return {digest: size for digest, size in sizes.items() if size is not None}


def _named(archive: ArchiveSource) -> dict[Digest, Descriptor]:
    named: dict[Digest, Descriptor] = {}
    for manifest in archive.contents.manifests.values():
        named.update({blob.digest: blob for blob in (*manifest.blobs, *manifest.child_blobs)})
    return named


def verify_archive(archive: ArchiveSource, workers: Executor, *, deep: bool = False) -> ArchiveVerdict:
    """Manifests and configs were proven when the archive was opened. Every blob that they name must be there with its
    size, its header in its place; with `deep` each is read and hashed as well."""

    def problem(blob: Descriptor) -> str:
        """Reads a byte even where all aren't to be read, for the header to be looked at."""
        try:
            for _ in archive.read_blob(blob) if deep else archive.read_blob(blob, 0, min(1, blob.size)):
                pass
        except TransshipError as error:
            return str(error)
        return ""

    blobs, manifests = _named(archive), archive.contents.manifests
    children = (child for manifest in manifests.values() for child in manifest.child_manifests)
    missing = [child.digest for child in children if child.digest not in manifests]
    problems = [f"{archive.name}@{digest}: the manifest is missing" for digest in missing]
    required = archive.contents.transship_json.required
    lacking = {
        digest
        for digest, blob in blobs.items()
        if archive.blob_size(digest) is None and (digest in required or not blob.distributable)
    }
    present = [blob for digest, blob in blobs.items() if digest not in lacking]
    problems.extend(filter(None, workers.map(problem, present)))
    return ArchiveVerdict(
        images=len(archive.contents.entries),
        blobs=len(present),
        bytes_hashed=sum(blob.size for blob in present) if deep else 0,
        lacking=len(lacking),
        problems=tuple(problems),
    )


def compare(before: ArchiveSource, after: ArchiveSource) -> ArchiveDifference:
    old, new = _by_name(before), _by_name(after)
    images = []
    for name in sorted({*old, *new}):
        old_digests, new_digests = old.get(name, set()), new.get(name, set())
        removed, added = sorted(old_digests - new_digests), sorted(new_digests - old_digests)
        if len(removed) == len(added) == 1:
            images.append(ImageChange(what=CHANGED, name=name, before=removed[0], after=added[0]))
            continue
        images.extend(ImageChange(what=REMOVED, name=name, before=digest) for digest in removed)
        images.extend(ImageChange(what=ADDED, name=name, after=digest) for digest in added)
    sizes, holds = blobs_of(before), blobs_of(after)
    return ArchiveDifference(
        images=tuple(images),
        blobs_added={digest: size for digest, size in holds.items() if digest not in sizes},
        blobs_removed={digest: size for digest, size in sizes.items() if digest not in holds},
    )


def _below(archive: ArchiveSource, manifest: Manifest) -> dict[Digest, Manifest]:
    """The manifest and those below it, each once, however many indexes list it."""
    below: dict[Digest, Manifest] = {}
    unread = [manifest]
    while unread:
        listed = unread.pop()
        if listed.digest not in below:
            below[listed.digest] = listed
            children = (archive.contents.manifests.get(child.digest) for child in listed.children)
            unread.extend(child for child in children if child is not None)
    return below


def _by_name(archive: ArchiveSource) -> dict[str, set[Digest]]:
    """By the repository that an image came from, and its tag where it has one."""
    digests: dict[str, set[Digest]] = {}
    for image in images_of(archive):
        name = image.name.partition("@")[0] + (f":{image.tag}" if image.tag else "")
        digests.setdefault(name or image.digest, set()).add(image.digest)
    return digests
