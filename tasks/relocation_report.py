"""What a relocation did, as a value and as a page."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from pydantic import BaseModel, computed_field

from oci.errors import Incomplete, StoreError, TransshipError
from oci.relocation.transfer import DONE, FAILED, PRESENT, ImageOutcome
from oci.units import counted, show_size
from tasks.page import cell
from tasks.picture import LONGEST, Bar, bytes_picture, embedded, in_words
from tasks.relocation import Relocation

_LINE = 72
_LISTED_FAILURES = 200
"""Failures that the page shows; the value has all of them."""


class ImageFailure(BaseModel):
    """One part of a relocation that failed."""

    image: str
    error: str
    retryable: bool
    """Whether trying again can help."""


class Traffic(BaseModel):
    """Bytes, or blobs, by what became of them."""

    written: int = 0
    mounted: int = 0
    skipped: int = 0


class ImageTraffic(Traffic):
    """Bytes of one image by what became of them, those of a blob that several images share counted once."""

    image: str
    failed: int = 0
    """Bytes below an image that failed, wherever they are now."""
    seconds: float = 0.0


class RelocationReport(BaseModel):
    """The receipt of one flow run. Sizes in bytes, times in seconds."""

    source: str
    what: str = ""
    """"bundle", "image", "index", "lock" or "archive"."""
    digest: str = ""
    destination: str
    archive: list[str] = []
    """Of a relocation into an archive: where that is, one file or object, or its volumes in order."""
    published: bool = False
    """Whether all of it has its names at the destination; where not, no name was moved."""
    tags: list[str] = []
    """Names that were moved at the destination; empty when they were right already, or when something failed."""
    locations: list[str] = []
    """Digests of the locations images that were written."""
    images_copied: int = 0
    images_present: int = 0
    """Were there already, by digest."""
    bytes_read: int = 0
    bytes: Traffic = Traffic()
    blobs: Traffic = Traffic()
    requests: dict[str, dict[str, int]] = {}
    """By registry and kind, such as `GET manifest`."""
    retries: int = 0
    throttled_seconds: float = 0.0
    seconds: float = 0.0
    identities: dict[str, str] = {}
    """Who we were, in words, by side and registry: `destination registry.corp.example`."""
    verified_manifests: int = 0
    verified_blobs: int = 0
    bytes_hashed: int = 0
    failures: list[ImageFailure] = []
    """Empty when all of it arrived."""
    biggest: list[ImageTraffic] = []
    """The images with the most bytes, some only of many."""
    bytes_failed: int = 0
    """Bytes below the images that failed."""

    @computed_field  # type: ignore[prop-decorator]
    @property
    def succeeded(self) -> bool:
        return not self.failures

    @property
    def total_requests(self) -> int:
        return sum(sum(kinds.values()) for kinds in self.requests.values())

    @classmethod
    def of(cls, relocation: Relocation) -> RelocationReport:
        receipt = relocation.receipt()
        request = relocation.order.request
        source, published, verification = relocation.source, relocation.published, relocation.verification
        statuses = [outcome.status for outcome in relocation.outcomes.values()]
        report = cls(
            source=source.reference if source else request.asked,
            what=source.what if source else "",
            digest=source.digest if source else "",
            destination=str(request.destination),
            images_copied=statuses.count(DONE),
            images_present=statuses.count(PRESENT),
            bytes_read=receipt.bytes_read,
            bytes=Traffic(written=receipt.bytes_written, mounted=receipt.bytes_mounted, skipped=receipt.bytes_skipped),
            blobs=Traffic(written=receipt.blobs_written, mounted=receipt.blobs_mounted, skipped=receipt.blobs_skipped),
            requests={registry: dict(kinds) for registry, kinds in receipt.requests.items()},
            retries=receipt.retries,
            throttled_seconds=round(receipt.throttled_seconds, 3),
            seconds=round(receipt.seconds, 3),
            identities=dict(receipt.identities),
            failures=list(_failures(relocation)),
        )
        images = sorted(_traffic(relocation), key=_total, reverse=True)
        report.biggest = [image for image in images[:LONGEST] if _total(image)]
        report.bytes_failed = sum(image.failed for image in images)
        if published is not None:
            report.published = True
            report.tags = list(published.tags)
            report.locations = list(published.locations)
        if verification is not None:
            report.verified_manifests = verification.manifests
            report.verified_blobs = verification.blobs
            report.bytes_hashed = verification.bytes_hashed
        return report

    def __str__(self) -> str:
        """One line."""
        verdict = "complete" if self.succeeded else f"incomplete, {len(self.failures)} failed"
        images = f"{counted(self.images_copied, 'image')} copied, {self.images_present} already there"
        sent = f"{show_size(self.bytes.written)} sent, {counted(self.total_requests, 'request')}, {self.seconds:.1f} s"
        return f"{verdict}: {images}; {sent}"

    def to_markdown(self) -> str:
        parts = (_head, _failed, _picture, _numbers, _biggest, _requests)
        return "\n".join(line for part in parts for line in part(self)) + "\n"


class RelocationIncomplete(Incomplete):
    """Some images failed and no name was moved; `report` says what did arrive, `failures` what didn't."""

    def __init__(self, report: RelocationReport, cause: Incomplete) -> None:
        super().__init__(cause.message, cause.failures, hint=cause.hint)
        self.report = report
        self.cause = cause

    def __reduce__(self) -> tuple[type[RelocationIncomplete], tuple[RelocationReport, Incomplete]]:
        return type(self), (self.report, self.cause)


def _failures(relocation: Relocation) -> Iterator[ImageFailure]:
    for unread in relocation.plan.failures if relocation.plan else ():
        yield ImageFailure(image=unread.subject, error=unread.message, retryable=unread.retryable)
    for outcome in relocation.outcomes.values():
        if outcome.status == FAILED:
            yield ImageFailure(image=outcome.subject, error=outcome.error, retryable=outcome.retryable)
    problems = relocation.verification.problems if relocation.verification else ()
    for problem in problems:
        yield ImageFailure(image=str(relocation.order.request.destination), error=problem, retryable=True)
    error = relocation.error
    if error is not None and not problems and not isinstance(error, Incomplete):
        yield ImageFailure(image=_subject(error), error=str(error), retryable=error.retryable)


def _traffic(relocation: Relocation) -> Iterator[ImageTraffic]:
    for outcome in relocation.outcomes.values():
        yield ImageTraffic(
            image=short(outcome.subject),
            written=outcome.bytes_written,
            mounted=outcome.bytes_mounted,
            skipped=outcome.bytes_skipped,
            failed=_lacking(relocation, outcome),
            seconds=round(outcome.seconds, 3),
        )


def _lacking(relocation: Relocation, outcome: ImageOutcome) -> int:
    image = relocation.plan.by_digest.get(outcome.digest) if relocation.plan else None
    return relocation.planned.bytes_below(image) if image and outcome.status == FAILED else 0


def _total(image: ImageTraffic) -> int:
    return image.written + image.mounted + image.skipped + image.failed


def short(subject: str) -> str:
    """`web@sha256:0123456789ab`, as task runs are named."""
    name, at, digest = subject.rpartition("@")
    return f"{name.rpartition('/')[2]}@{digest[:19]}" if at else subject.rpartition("/")[2]


def _subject(error: TransshipError) -> str:
    return error.subject or error.store if isinstance(error, StoreError) else ""


def _head(report: RelocationReport) -> Iterator[str]:
    if report.succeeded and not report.images_copied and not report.tags:
        verdict = "Nothing to do: everything was in place."
    elif report.succeeded:
        verdict = "Complete."
    elif report.published:
        verdict = f"**Everything has its name, but verifying found {counted(len(report.failures), 'problem')}.**"
    else:
        verdict = f"**{len(report.failures)} failed; no name was moved.** What arrived is not sent again next time."
    yield f"## {report.source} → {report.destination}"
    yield ""
    yield verdict
    yield ""
    if report.digest:
        yield f"`{report.digest}`"
        yield ""


def _picture(report: RelocationReport) -> Iterator[str]:
    """Nothing where no byte was moved, or should have been."""
    moved = report.bytes
    total = Bar("", moved.written, moved.mounted, moved.skipped, report.bytes_failed)
    if not total.total:
        return
    bars = [Bar(one.image, one.written, one.mounted, one.skipped, one.failed, one.seconds) for one in report.biggest]
    failed = sum(one.failed > 0 for one in report.biggest)
    more = report.images_copied + max(failed, len(report.failures)) - len(bars)
    yield embedded(bytes_picture(total, bars, max(0, more)), f"Bytes by outcome: {in_words(total)}")
    yield ""


def _numbers(report: RelocationReport) -> Iterator[str]:
    rows = {
        "Destination": f"`{report.destination}`",
        "Tags moved": _tags(report.tags),
        "Images": f"{report.images_copied} copied, {report.images_present} already there",
        "Copied": f"{show_size(report.bytes.written)} in {counted(report.blobs.written, 'blob')}",
        "Mounted": f"{show_size(report.bytes.mounted)} in {counted(report.blobs.mounted, 'blob')}"
        if report.blobs.mounted
        else "",
        "Skipped": f"{show_size(report.bytes.skipped)} in {counted(report.blobs.skipped, 'blob')}"
        if report.blobs.skipped
        else "",
        "Verified": f"{counted(report.verified_manifests, 'manifest')}, {counted(report.verified_blobs, 'blob')}, "
        f"{show_size(report.bytes_hashed)} hashed again"
        if report.verified_manifests
        else "",
        "Time": f"{report.seconds:.1f} s",
        "Retries": f"{report.retries}, {report.throttled_seconds:.1f} s told to wait" if report.retries else "none",
    }
    yield f"| Source | {cell(f'{report.what} `{report.source}`'.strip())} |"
    yield "|---|---|"
    for name, value in rows.items():
        if value:
            yield f"| {name} | {cell(value)} |"
    for where, identity in sorted(report.identities.items(), reverse=True):
        side, _, registry = where.partition(" ")
        yield f"| Login at the {side} | {cell(identity)}, {cell(registry)} |"
    yield ""


def _tags(tags: list[str]) -> str:
    """The names that people use; those of attachments are only counted."""
    named = [f"`{tag}`" for tag in tags if not tag.startswith("sha256-")]
    attached = len(tags) - len(named)
    return ", ".join([*named, f"{attached} of attached artifacts"] if attached else named)


def _biggest(report: RelocationReport) -> Iterator[str]:
    """What the picture shows, for whoever can't see it."""
    if not report.biggest:
        return
    yield "### Biggest images"
    yield ""
    yield "| Image | Bytes | Seconds |"
    yield "|---|---|---:|"
    for one in report.biggest:
        words = in_words(Bar(one.image, one.written, one.mounted, one.skipped, one.failed))
        yield f"| `{cell(one.image.replace('`', ''))}` | {words} | {one.seconds:.1f} |"
    yield ""


def _requests(report: RelocationReport) -> Iterator[str]:
    if not report.requests:
        return
    yield f"### {counted(report.total_requests, 'request')}"
    yield ""
    yield "| Registry | Kind | Requests |"
    yield "|---|---|---:|"
    for registry, kinds in sorted(report.requests.items()):
        for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
            yield f"| {cell(registry)} | {kind} | {count} |"
    yield ""


def _failed(report: RelocationReport) -> Iterator[str]:
    if report.succeeded:
        return
    yield "### Failed"
    yield ""
    yield "```"
    for failed in report.failures[:_LISTED_FAILURES]:
        again = "may pass" if failed.retryable else "won't pass by itself"
        yield from _wrapped(failed.image or report.destination)
        yield from (f"    {line}" for line in _wrapped(f"{failed.error} ({again})"))
    if len(report.failures) > _LISTED_FAILURES:
        yield f"and {len(report.failures) - _LISTED_FAILURES} more"
    yield "```"
    yield ""


def _wrapped(text: str) -> list[str]:
    """Lines for a block that doesn't wrap by itself: a digest can be longer than the page is wide."""
    return textwrap.wrap(text.replace("`", "'"), _LINE, break_on_hyphens=False)
