"""What is left of a relocation: its report, a small value that says what was done, for pages, events and programs; and
the lock file of what is at the destination.

`RelocationResult` has the plan with every manifest and blob; a report stays some kilobytes for any number of images.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from oci.bundle.lockfile import BundleLock, ImagesLock, LockedImage, read_lock
from oci.digest import Digest
from oci.errors import Incomplete, InvalidInput, NotTrusted, StoreError, cause_and_step
from oci.meter import Receipt
from oci.reference import Reference
from oci.relocation.driver import Relocation
from oci.relocation.plan import Plan, Role
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED, PRESENT
from oci.relocation.verify import Verification
from oci.units import counted, show_size

BIGGEST = 12
"""Images that a report names by size."""


class ImageFailure(Struct, frozen=True, kw_only=True):
    """One part of a relocation that failed. `retryable` says whether trying again can help."""

    image: str
    error: str
    retryable: bool
    refused: bool = False
    """By the policy of signatures."""


class Traffic(Struct, frozen=True, kw_only=True):
    """Bytes, or blobs, by what became of them."""

    written: int = 0
    mounted: int = 0
    skipped: int = 0


class ImageTraffic(Struct, frozen=True, kw_only=True):
    """Bytes of one image by what became of them; a blob that several images share is counted once. `failed` are the
    bytes below an image that failed, wherever they are now."""

    image: str
    written: int = 0
    mounted: int = 0
    skipped: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        return self.written + self.mounted + self.skipped + self.failed


class ArchiveFacts(Struct, frozen=True, kw_only=True):
    """Facts about a relocation into an archive. Sizes in bytes; `left_out` is what the other side of a delta has.
    `unchanged`: the same archive was in place before."""

    locations: tuple[str, ...] = ()
    size: int = 0
    images: int = 0
    blobs: int = 0
    parts: int = 0
    left_out: int = 0
    unchanged: bool = False


class RelocationReport(Struct, frozen=True, kw_only=True):
    """What one relocation did. Sizes in bytes, times in seconds."""

    source: str
    destination: str
    what: str = ""
    """"bundle", "image", "index", "lock" or "archive"."""
    digest: str = ""
    archive: list[str] = []
    """Where an archive that is the destination is: one file or object, or its volumes in order."""
    archive_facts: ArchiveFacts | None = None
    published: bool = False
    """Whether all of it has its names at the destination; where not, no name was moved."""
    tags: list[str] = []
    """Names that were moved at the destination; empty when they were right already, or when something failed."""
    locations: list[str] = []
    """Digests of the locations images that were written."""
    images_copied: int = 0
    images_present: int = 0
    """Were there already, by digest."""
    attached_left: int = 0
    """Signatures and the like that were seen at the source and not asked for."""
    bytes_read: int = 0
    bytes: Traffic = Traffic()
    blobs: Traffic = Traffic()
    requests: dict[str, dict[str, int]] = {}
    """By registry and kind, such as `GET manifest`."""
    retries: int = 0
    throttled_seconds: float = 0.0
    seconds: float = 0.0
    identities: dict[str, str] = {}
    """Logins, in words, by side and registry: `destination registry.corp.example`."""
    fallbacks: dict[str, tuple[str, ...]] = {}
    """By registry: what it refused, and what was done instead."""
    verified_manifests: int = 0
    verified_blobs: int = 0
    bytes_hashed: int = 0
    problems: int = 0
    """Problems that verifying found; the failures have them."""
    failures: list[ImageFailure] = []
    """Empty when all of it arrived."""
    biggest: list[ImageTraffic] = []
    """The images with the most bytes, some only of many."""
    bytes_failed: int = 0
    """Bytes below the images that failed."""
    fleet: str = ""
    """How many helpers shared the work, and why; empty where none were offered."""

    @property
    def succeeded(self) -> bool:
        return not self.failures

    def __str__(self) -> str:
        early = next((cause_and_step(failure.error)[0] for failure in self.failures if not failure.image), "")
        verdict = f"incomplete, {early or f'{len(self.failures)} failed'}" if self.failures else "complete"
        images = f"{counted(self.images_copied, 'image')} copied, {self.images_present} already there"
        sent = f"{show_size(self.bytes.written)} sent, {counted(self.total_requests, 'request')}"
        return f"{verdict}: {images}{left_behind(self.attached_left)}; {sent}, {self.seconds:.1f} s"

    @property
    def total_requests(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.requests.values())

    def to_dict(self) -> dict[str, Any]:
        return {**msgspec.to_builtins(self), "succeeded": self.succeeded}


def left_behind(count: int) -> str:
    """`, 3 attached artifacts left`, or nothing."""
    return f", {counted(count, 'attached artifact')} left" if count else ""


class RelocationIncomplete(Incomplete):
    """Some images failed and no name was moved; `report` says what did arrive, `failures` what didn't."""

    def __init__(self, report: RelocationReport, cause: Incomplete) -> None:
        super().__init__(cause.message, cause.failures, hint=cause.hint)
        self.report = report
        self.cause = cause

    def __reduce__(self) -> tuple[type[RelocationIncomplete], tuple[RelocationReport, Incomplete]]:
        return type(self), (self.report, self.cause)


def report_of(
    relocation: Relocation,
    receipt: Receipt,
    *,
    source: str = "",
    what: str = "",
    digest: str = "",
    fleet: str = "",
) -> RelocationReport:
    """Returns the report of a relocation that has ended, perhaps before there was a plan. `receipt` has all that it
    cost; `source` is the reference as it was resolved."""
    plan, error, published = relocation.made_plan, relocation.error, relocation.published
    destination = str(relocation.request.destination)
    proven = relocation.verification or Verification()
    outcomes = relocation.outcomes.values()
    statuses = [outcome.status for outcome in outcomes]
    failed = [outcome for outcome in outcomes if outcome.status == FAILED]
    lacking = {
        outcome.digest: plan.bytes_below(plan.by_digest[outcome.digest])
        for outcome in failed
        if plan and outcome.digest in plan.by_digest
    }
    images = [
        ImageTraffic(
            image=short_subject(outcome.subject),
            written=outcome.bytes_written,
            mounted=outcome.bytes_mounted,
            skipped=outcome.bytes_skipped,
            failed=lacking.get(outcome.digest, 0),
            seconds=round(outcome.seconds, 3),
        )
        for outcome in outcomes
    ]
    images.sort(key=lambda image: image.total, reverse=True)
    # Each failure once, whatever step it is from.
    failures = [
        ImageFailure(image=unread.subject, error=unread.message, retryable=unread.retryable, refused=unread.refused)
        for unread in (plan.failures if plan else ())
    ]
    failures += [
        ImageFailure(image=outcome.subject, error=outcome.error, retryable=outcome.retryable) for outcome in failed
    ]
    failures += [ImageFailure(image=destination, error=problem, retryable=True) for problem in proven.problems]
    if error is not None and not proven.problems and not isinstance(error, Incomplete):
        subject = error.subject or error.store if isinstance(error, StoreError) else ""
        refused = isinstance(error, NotTrusted)
        failures.append(ImageFailure(image=subject, error=str(error), retryable=error.retryable, refused=refused))
    return RelocationReport(
        source=source or relocation.request.source_text,
        destination=destination,
        what=what,
        digest=digest,
        published=published.complete,
        tags=list(published.tags),
        locations=list(published.locations) if published.complete else [],
        images_copied=statuses.count(DONE),
        images_present=statuses.count(PRESENT),
        attached_left=plan.attached_left if plan else 0,
        bytes=Traffic(written=receipt.bytes_written, mounted=receipt.bytes_mounted, skipped=receipt.bytes_skipped),
        blobs=Traffic(written=receipt.blobs_written, mounted=receipt.blobs_mounted, skipped=receipt.blobs_skipped),
        bytes_read=receipt.bytes_read,
        requests={registry: dict(kinds) for registry, kinds in receipt.requests.items()},
        retries=receipt.retries,
        throttled_seconds=round(receipt.throttled_seconds, 3),
        seconds=round(receipt.seconds, 3),
        identities=dict(receipt.identities),
        fallbacks=dict(receipt.fallbacks),
        verified_manifests=proven.manifests,
        verified_blobs=proven.blobs,
        bytes_hashed=proven.bytes_hashed,
        problems=len(proven.problems),
        failures=failures,
        biggest=[image for image in images[:BIGGEST] if image.total],
        bytes_failed=sum(image.failed for image in images),
        fleet=fleet,
    )


def short_subject(subject: str) -> str:
    """`web@sha256:0123456789ab`, as task runs are named."""
    name, at, digest = subject.rpartition("@")
    return f"{name.rpartition('/')[2]}@{digest[:19]}" if at else subject.rpartition("/")[2]


class VerifiedPlace(Struct, frozen=True, kw_only=True):
    """One repository or layout folder; `names` are tags and digests, empty for all tags. Sizes in bytes."""

    place: str
    names: list[str] = []
    manifests: int = 0
    blobs: int = 0
    bytes_hashed: int = 0
    problems: list[str] = []

    @classmethod
    def of(cls, place: str, names: list[str], verification: Verification) -> VerifiedPlace:
        return cls(place=place, names=names, problems=list(verification.problems), **verification.amounts)


class VerificationReport(Struct, frozen=True, kw_only=True):
    """What verifying some places has found."""

    deep: bool
    places: list[VerifiedPlace]
    requests: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        return not self.problems

    @property
    def problems(self) -> list[str]:
        return [problem for place in self.places for problem in place.problems]

    def __str__(self) -> str:
        manifests, blobs = sum(place.manifests for place in self.places), sum(place.blobs for place in self.places)
        hashed = show_size(sum(place.bytes_hashed for place in self.places))
        verdict = "complete" if self.complete else counted(len(self.problems), "problem")
        amounts = f"{counted(manifests, 'manifest')}, {counted(blobs, 'blob')}, {hashed} hashed"
        return f"{verdict}: {amounts}, {counted(self.requests, 'request')}"

    def to_dict(self) -> dict[str, Any]:
        return {**msgspec.to_builtins(self), "complete": self.complete}


def result_lock(session: Session, request: RelocationRequest, plan: Plan) -> ImagesLock | BundleLock:
    """Returns a BundleLock for a bundle. For an ImagesLock, the same entries in the same order with the same
    annotations at the destination; for an image, every image that was processed, sorted."""
    source_lock = read_lock(request.lock) if request.lock else None
    if isinstance(source_lock, ImagesLock):
        moved: dict[Digest | None, Digest] = {
            index.rewritten_from: index.digest for index in plan.manifests if index.rewritten_from
        }
        return ImagesLock(
            tuple(
                replace(entry, image=_at(plan, moved.get(entry.image.digest, entry.image.digest)))
                for entry in source_lock.images
            )
        )
    root = plan.by_digest.get(plan.root) if plan.root else None
    if root is not None and root.is_bundle:
        return BundleLock(_at(plan, root.digest), plan.tags[0] if plan.tags else "")
    if request.archive:
        from oci.relocation.archive_source import is_bundle  # noqa: PLC0415 - for archives only

        archive = session.archive(request.archive_name)
        if any(is_bundle(archive, image.digest) for image in plan.images):  # the plan didn't read what is there
            raise InvalidInput(
                "Unable to determine correct root bundle to use for lock-output. hint: if copying from a tarball, try "
                "re-generating the tarball\nthe archive has a bundle and doesn't say whether that is what it was made "
                "for: there is no lock for it",
                hint="make the archive again with a current version, or copy without --lock-output",
            )
    # By the reference each was read from. An archive says it; an image and its signatures come from one repository.
    images = sorted(
        (image for image in plan.images if image.role is not Role.REFERRER),
        key=lambda image: (image.origin if request.archive else "", image.digest),
    )
    return ImagesLock(tuple(LockedImage(_at(plan, image.digest)) for image in images))


def _at(plan: Plan, digest: Digest | None) -> Reference:
    return Reference(plan.destination, "", digest)
