"""Telling what an export did: a page to read, an event to act on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from prefect import task
from prefect.artifacts import acreate_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.units import counted, show_size
from tasks.cost import Cost
from tasks.metrics import RunMetrics, tell
from tasks.page import cell
from tasks.relocation_report import ImageFailure, RelocationReport, Traffic
from tasks.report import FAILED, FINISHED, artifact_key
from tasks.tarball import Export, current_export


class ExportReport(BaseModel):
    """What became of an archive. Sizes in bytes."""

    source: str
    digest: str = ""
    archive: list[str] = []
    """Where it is: one file or object, or the volumes in order."""
    size: int = 0
    images: int = 0
    blobs: int = 0
    parts: int = 0
    sent: int = 0
    """Went through the workers."""
    copied: int = 0
    """Came out of the older archive without doing so."""
    kept: int = 0
    """Was stored by an earlier run."""
    left_out: int = 0
    """Of a delta: what the other side has."""
    complete: bool = False
    unchanged: bool = False
    """The very archive was there before."""
    error: str = ""
    cost: Cost = Cost()

    @classmethod
    def of(cls, export: Export) -> ExportReport:
        written, plan = export.written, export.archive
        return cls(
            source=export.source.reference if export.source else export.order.request.asked,
            digest=export.source.digest if export.source else "",
            archive=list(plan.locations) if plan else [],
            size=plan.size if plan else 0,
            images=plan.images if plan else 0,
            blobs=len(plan.blobs) if plan else 0,
            parts=sum(len(volume.parts) for volume in plan.volumes) if plan else 0,
            sent=sum(one.sent for one in written),
            copied=sum(one.copied for one in written),
            kept=sum(one.kept for one in written),
            left_out=sum(size for _, size in plan.left_out) if plan else 0,
            complete=export.result is not None or export.unchanged,
            unchanged=export.unchanged,
            error=str(export.error) if export.error else "",
            cost=Cost.of(export.receipt()),
        )

    @property
    def succeeded(self) -> bool:
        """Complete, and whole as far as that was asked for."""
        return self.complete and not self.error

    def relocation(self, export: Export) -> RelocationReport:
        """The same as `relocate` tells it: what was copied in the store counts as mounted, and what an earlier run had
        stored as skipped."""
        report = RelocationReport.of(export)
        report.archive = self.archive
        report.published = self.complete
        report.images_copied, report.images_present = (0, self.images) if self.unchanged else (self.images, 0)
        report.bytes = Traffic(written=self.sent, mounted=self.copied, skipped=self.kept)
        error = export.error
        if error is not None and not report.failures:
            report.failures = [ImageFailure(image=report.destination, error=str(error), retryable=error.retryable)]
        return report

    def __str__(self) -> str:
        """One line."""
        if not self.complete:
            return f"incomplete: {self.error}"
        if self.error:
            return f"complete, but not whole: {self.error}"
        if self.unchanged:
            return f"{', '.join(self.archive)} is this very archive: nothing was written"
        moved = (
            f"{show_size(self.sent)} sent, {show_size(self.copied)} copied in the store, {show_size(self.kept)} kept"
        )
        return f"{', '.join(self.archive)}: {show_size(self.size)}; {moved}"

    def to_markdown(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def _lines(self) -> Iterator[str]:
        yield f"## {self.source} → {', '.join(self.archive) or 'an archive'}"
        yield ""
        if self.complete and self.error:
            yield f"**It has its name, but verifying found what is wrong.** {cell(self.error)}"
        elif self.error:
            yield f"**Not complete; nobody sees it.** {cell(self.error)} What is stored isn't sent again next time."
        else:
            yield "Nothing to do: this very archive was there." if self.unchanged else "Complete."
        yield ""
        if self.digest:
            yield f"`{self.digest}`"
            yield ""
        yield f"| Source | {cell(self.source)} |"
        yield "|---|---|"
        for name, value in self._rows():
            yield f"| {name} | {cell(value)} |"
        yield ""

    def _rows(self) -> Iterator[tuple[str, str]]:
        if self.size:
            held = f"{counted(self.images, 'image')}, {counted(self.blobs, 'blob')}"
            yield "Archive", f"{show_size(self.size)}, {held}, {counted(self.parts, 'part')}"
        if self.copied:
            yield "Copied in the store", f"{show_size(self.copied)} out of the older archive"
        if self.kept:
            yield "Kept", f"{show_size(self.kept)} that an earlier run had stored"
        if self.left_out:
            yield "Left out", f"{show_size(self.left_out)} that the other side has"
        yield from self.cost.rows()


@task(name="report export", task_run_name="report {location}", cache_policy=NO_CACHE)
async def report_export(location: str) -> ExportReport:
    """Writes the page and emits `transship.relocation.finished` or `.failed` with the report as payload. Tells the
    metrics where the worker's environment says so."""
    export = current_export()
    written = ExportReport.of(export)
    await acreate_markdown_artifact(
        key=artifact_key("export", location),
        markdown=written.to_markdown(),
        description=f"What the export of {written.source} did",
    )
    emit_event(
        event=FINISHED if written.succeeded else FAILED,
        resource={
            "prefect.resource.id": f"transship.relocation.{location}",
            "prefect.resource.name": location,
            "transship.source": written.source,
        },
        payload=written.model_dump(mode="json"),
    )
    numbers = RunMetrics(
        names={"destination": location},
        succeeded=written.succeeded,
        ended=time.time(),
        receipt=export.receipt(),
        images={
            "copied": written.images if written.complete and not written.unchanged else 0,
            "present": written.images if written.unchanged else 0,
        },
    )
    await asyncio.to_thread(tell, numbers, warn=get_run_logger().warning)
    log = get_run_logger().info if written.succeeded else get_run_logger().error
    log("%s", written)
    return written
