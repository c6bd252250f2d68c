"""The lock file that describes the result of a relocation, as imgpkg writes it."""

from __future__ import annotations

from dataclasses import replace

from oci.bundle.bundlelock import BundleLock
from oci.bundle.imageslock import ImagesLock, LockedImage
from oci.bundle.lockfile import read_lock
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.reference import ARCHIVE_PREFIX, Reference, parse_store
from oci.relocation.plan import Plan, PlannedManifest, Role
from oci.relocation.request import RelocationRequest


def result_lock(request: RelocationRequest, plan: Plan) -> ImagesLock | BundleLock:
    """A BundleLock for a bundle. For an ImagesLock, the same entries in the same order with the same annotations at
    the destination; for an image, every image that was processed, sorted."""
    given = read_lock(request.lock) if request.lock else None
    if isinstance(given, ImagesLock):
        moved = {one.rewritten_from: one.digest for one in plan.manifests if one.rewritten_from}
        return ImagesLock(tuple(_moved(image, plan, moved) for image in given.images))
    root = plan.by_digest.get(plan.root) if plan.root else None
    if root is not None and root.is_bundle:
        return BundleLock(_at(plan, root.digest), plan.tags[0] if plan.tags else "")
    if request.archive and any(image.is_bundle for image in plan.images):
        raise InvalidInput(
            "the archive has a bundle and doesn't say whether that is what it was made for: there is no lock for it",
            hint="make the archive again with a current version, or copy without --lock-output",
        )
    images = sorted(
        (image for image in plan.images if image.role is not Role.REFERRER),
        key=_found_at,
    )
    return ImagesLock(tuple(LockedImage(_at(plan, image.digest)) for image in images))


def _found_at(image: PlannedManifest) -> str:
    """An image of an archive: where that was made from."""
    return image.origin if image.store.startswith(ARCHIVE_PREFIX) else f"{image.store}@{image.digest}"


def _moved(image: LockedImage, plan: Plan, moved: dict[Digest, Digest]) -> LockedImage:
    digest = image.image.digest
    if digest is None:
        return image
    return replace(image, image=_at(plan, moved.get(digest, digest)))


def _at(plan: Plan, digest: Digest) -> Reference:
    return Reference(parse_store(plan.destination), "", digest)
