"""The lock file that describes the result of a relocation, as imgpkg writes it."""

from __future__ import annotations

from dataclasses import replace

from oci.bundle.bundlelock import BundleLock
from oci.bundle.imageslock import ImagesLock, LockedImage
from oci.bundle.lockfile import read_lock
from oci.digest import Digest
from oci.errors import InvalidInput
from oci.reference import Reference, parse_store
from oci.relocation.archived import any_bundle
from oci.relocation.plan import Plan, Role
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session


def result_lock(session: Session, request: RelocationRequest, plan: Plan) -> ImagesLock | BundleLock:
    """A BundleLock for a bundle. For an ImagesLock, the same entries in the same order with the same annotations at
    the destination; for an image, every image that was processed, sorted."""
    given = read_lock(request.lock) if request.lock else None
    if isinstance(given, ImagesLock):
        moved = {one.rewritten_from: one.digest for one in plan.manifests if one.rewritten_from}
        return ImagesLock(tuple(_moved(image, plan, moved) for image in given.images))
    root = plan.by_digest.get(plan.root) if plan.root else None
    if root is not None and root.is_bundle:
        return BundleLock(_at(plan, root.digest), plan.tags[0] if plan.tags else "")
    if request.archive and any_bundle(session.archive(request.archive_name), (image.digest for image in plan.images)):
        raise InvalidInput(
            "the archive has a bundle and doesn't say whether that is what it was made for: there is no lock for it",
            hint="make the archive again with a current version, or copy without --lock-output",
        )
    # By the reference each was read from. An archive says it; an image and its signatures come from one repository.
    images = sorted(
        (image for image in plan.images if image.role is not Role.REFERRER),
        key=lambda image: (image.origin if request.archive else "", image.digest),
    )
    return ImagesLock(tuple(LockedImage(_at(plan, image.digest)) for image in images))


def _moved(image: LockedImage, plan: Plan, moved: dict[Digest, Digest]) -> LockedImage:
    digest = image.image.digest
    if digest is None:
        return image
    return replace(image, image=_at(plan, moved.get(digest, digest)))


def _at(plan: Plan, digest: Digest) -> Reference:
    return Reference(parse_store(plan.destination), "", digest)
