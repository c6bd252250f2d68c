"""What a prune has done: a value for pages, events and programs."""

from __future__ import annotations

from msgspec import Struct

from oci.prune.execute import PruneReport, Remaining
from oci.prune.plan import PrunePlan
from oci.units import counted, show_size


class PruneRunReport(Struct, frozen=True, kw_only=True):
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
    def of(cls, plan: PrunePlan, report: PruneReport, note: str) -> PruneRunReport:
        return cls(
            destination=report.destination,
            outcome="failed" if report.failed else "deleted",
            note=note,
            planned=len(plan.due_manifests) + len(plan.due_tags),
            deleted=[str(manifest.digest) for manifest in report.deleted],
            tags_deleted=[*(tag for manifest in report.deleted for tag in manifest.tags), *report.untagged],
            skipped=list(report.skipped),
            refused=list(report.refused),
            failed=list(report.failed),
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
