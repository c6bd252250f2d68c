"""Making the result visible, last of all: bundles, their locations images, then the names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from msgspec import Struct

from oci.bundle import tagnames
from oci.bundle.locations import locations_image
from oci.bundle.lockfile import BundleLock, ImagesLock, LockedImage, read_lock
from oci.digest import Digest
from oci.errors import Incomplete, InvalidInput, PartFailed, Refused, StoreError, TransshipError
from oci.reference import Reference
from oci.relocation.archive_source import any_bundle
from oci.relocation.plan import Plan, PlannedBundle, PlannedManifest, Role
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import FAILED, ImageOutcome, load_manifest, put_manifest
from oci.store import Destination, reader_of


class Published(Struct, frozen=True, kw_only=True):
    """What got a name. `tags` are those that were moved, in order; `locations` the digests of locations images."""

    tags: tuple[str, ...] = ()
    locations: tuple[Digest, ...] = ()


def check_readable(plan: Plan) -> None:
    """Raises Incomplete, as the relocation itself will, when a part of the source couldn't be read."""
    if plan.failures:
        raise _incomplete(plan, _unreadable(plan), some_done=any(True for _ in plan.images))


def check_complete(plan: Plan, outcomes: Iterable[ImageOutcome]) -> None:
    """Raises Incomplete, with what failed, unless every image of the plan is in place."""
    known = {outcome.digest: outcome for outcome in outcomes}
    failures = _unreadable(plan)
    for image in plan.images:
        outcome = known.get(image.digest)
        if outcome is None:
            failures.append(StoreError("was not transferred", subject=str(image.digest), retryable=True))
        elif outcome.status == FAILED:
            failures.append(PartFailed(outcome.error, subject=outcome.subject, retryable=outcome.retryable))
    if failures:
        raise _incomplete(plan, failures, some_done=any(outcome.status != FAILED for outcome in known.values()))


def _unreadable(plan: Plan) -> list[TransshipError]:
    return [
        PartFailed(failed.message, side="source", subject=failed.subject, retryable=failed.retryable)
        for failed in plan.failures
    ]


def _incomplete(plan: Plan, failures: list[TransshipError], *, some_done: bool) -> Incomplete:
    again = "run the same again" if any(failure.retryable for failure in failures) else "mend that and run it again"
    return Incomplete(
        f"{len(failures)} of {len(list(plan.images)) + len(plan.failures)} images failed; no name was moved",
        failures,
        some_done=some_done,
        hint=f"{again}: what is there already is not sent again",
    )


def publish_content(session: Session, plan: Plan, *, hold_roots: bool = False) -> tuple[Digest, ...]:
    """Writes what names are to point at: bundles and their locations images, innermost first. Gives the digests of the
    locations images. With `hold_roots`, a root that only its tag is to hold is pushed by digest as well, so that it can
    be verified before the tag moves. Every image of the plan must be in place (`check_complete`)."""
    destination = session.destination(plan.destination)
    listed = {bundle.digest: bundle for bundle in plan.bundles}
    locations: list[Digest] = []
    for manifest in plan.manifests:
        session.cancel.check()
        if not manifest.present and (manifest.is_bundle or (hold_roots and manifest.held_by_tag)):
            _push(session, destination, manifest, manifest.keep_alive)
        if manifest.digest in listed:
            locations.append(_push_locations(destination, listed[manifest.digest], fresh=plan.fresh))
    return tuple(locations)


def publish_names(session: Session, plan: Plan) -> tuple[str, ...]:
    """Moves the tags, last of all: attachments first, the tags of the root last. Gives them in this order."""
    destination = session.destination(plan.destination)
    tags: list[str] = []
    for manifest in sorted(plan.manifests, key=lambda manifest: manifest.role is Role.ROOT):
        for tag in manifest.tags:
            session.cancel.check()
            _push(session, destination, manifest, tag)
            tags.append(tag)
    return tuple(tags)


def _push(session: Session, destination: Destination, manifest: PlannedManifest, tag: str) -> None:
    put_manifest(session, destination, load_manifest(session, manifest), tag)


def _push_locations(destination: Destination, bundle: PlannedBundle, *, fresh: bool) -> Digest:
    """Deterministic, so a second run finds the same digest and writes nothing.

    A registry with immutable tags may refuse to replace older locations: those that are there then stay (imgpkg does
    the same), for they are a hint that readers verify.
    """
    image = locations_image((str(image), is_bundle) for image, is_bundle in bundle.entries)
    tag = tagnames.locations(bundle.digest)
    there = None if fresh else destination.head_manifest(tag)
    if there is not None and there.digest == image.manifest.digest:
        return image.manifest.digest
    for descriptor, data in image.blobs:
        destination.put_blob(descriptor, reader_of(data), fresh=fresh)
    destination.put_manifest(image.manifest, tagnames.keep_alive(image.manifest.digest))
    try:
        destination.put_manifest(image.manifest, tag)
    except Refused as error:
        if there is None or "immutable" not in str(error).lower():
            raise
    return image.manifest.digest


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
    return Reference(plan.destination, "", digest)
