"""What a prune found and did, as values and as a page."""

from __future__ import annotations

from pydantic import BaseModel

from oci.prune.execute import Left, PruneReport
from oci.prune.plan import PrunePlan
from oci.units import counted, show_size


class PlannedPrune(BaseModel):
    """A plan in numbers, and as the JSON of an `oci.prune.plan.PrunePlan`."""

    destination: str
    manifests: int
    tags: int
    waiting: int
    kept: int
    bytes: int
    """At most, when all that is due is deleted."""
    fingerprint: str
    """The same for two plans that delete the same."""
    document: str

    @property
    def is_empty(self) -> bool:
        """Nothing is to be deleted now."""
        return not (self.manifests or self.tags)

    def __str__(self) -> str:
        tags = f" and {counted(self.tags, 'tag')} of others" if self.tags else ""
        waiting = f", {self.waiting} within their grace period" if self.waiting else ""
        return (
            f"{self.destination}: {counted(self.manifests, 'manifest')}{tags} to delete{waiting}, "
            f"{counted(self.kept, 'manifest')} kept, at most {show_size(self.bytes)} to free"
        )


class Remaining(BaseModel):
    """Something of the plan that is there still."""

    subject: str
    reason: str
    retryable: bool = False


class PruneRunReport(BaseModel):
    """The receipt of one flow run. Sizes in bytes."""

    destination: str
    outcome: str
    """"deleted", "nothing to delete", "planned", "denied" or "failed"."""
    note: str = ""
    """What the person wrote who was asked."""
    planned: int = 0
    """Manifests and tags that the plan was to delete."""
    deleted: list[str] = []
    """Digests."""
    tags_deleted: list[str] = []
    """Names that went, with their manifests or alone."""
    skipped: list[Remaining] = []
    refused: list[Remaining] = []
    failed: list[Remaining] = []
    gone: int = 0
    waiting: int = 0
    kept: int = 0
    bytes_freed: int = 0
    requests: int = 0
    seconds: float = 0.0

    @classmethod
    def of_plan(cls, plan: PlannedPrune, outcome: str, note: str = "") -> PruneRunReport:
        """Of a run that deleted nothing."""
        return cls(
            destination=plan.destination,
            outcome=outcome,
            note=note,
            planned=plan.manifests + plan.tags,
            waiting=plan.waiting,
            kept=plan.kept,
        )

    @classmethod
    def of(cls, plan: PrunePlan, report: PruneReport, note: str) -> PruneRunReport:
        return cls(
            destination=report.destination,
            outcome="failed" if report.failed else "deleted",
            note=note,
            planned=len(plan.due_manifests) + len(plan.due_tags),
            deleted=[str(one.digest) for one in report.deleted],
            tags_deleted=[*(tag for one in report.deleted for tag in one.tags), *report.untagged],
            skipped=list(map(_remaining, report.skipped)),
            refused=list(map(_remaining, report.refused)),
            failed=list(map(_remaining, report.failed)),
            gone=report.gone,
            waiting=report.waiting,
            kept=plan.manifests_kept,
            bytes_freed=report.bytes_freed,
            requests=report.receipt.total_requests,
            seconds=round(report.receipt.seconds, 3),
        )

    def __str__(self) -> str:
        if self.outcome in ("denied", "planned", "nothing to delete"):
            return f"{self.destination}: {self.outcome}; {self.planned} were to delete, {self.waiting} are waiting"
        deleted = f"{counted(len(self.deleted), 'manifest')} and {counted(len(self.tags_deleted), 'tag')} deleted"
        return (
            f"{self.destination}: {deleted}, "
            f"{len(self.skipped)} left, {len(self.failed)} failed, {show_size(self.bytes_freed)} freed"
        )


def _remaining(left: Left) -> Remaining:
    return Remaining(subject=left.subject, reason=left.reason, retryable=left.retryable)
