"""Telling what a relocation did: an artifact to read, a list to work with, an event to act on."""

from __future__ import annotations

import asyncio
import re
import time

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event
from prefect.logging import get_run_logger

from oci.meter import Receipt
from tasks.metrics import RunMetrics, tell
from tasks.relocation import current
from tasks.relocation_report import ImageFailure, RelocationReport, short

FINISHED = "transship.relocation.finished"
FAILED = "transship.relocation.failed"

_EVENT_FAILURES = 100
"""Failures that travel in the event: one has a size limit."""


def artifact_key(kind: str, destination: str) -> str:
    """A key of `[a-z0-9-]` that is the same for every run to a destination, so that the UI keeps a history of it."""
    slug = re.sub(r"[^a-z0-9]+", "-", destination.lower()).strip("-")
    return f"{kind}-{slug}"[:200]


@task(name="report", task_run_name="report {destination}", cache_policy=NO_CACHE)
async def report(destination: str) -> RelocationReport:
    """Writes the report artifact, the table of failures when there are any, and emits `transship.relocation.finished`
    or `transship.relocation.failed` with the report as payload. Tells the metrics where the worker's environment says
    so."""
    relocation = current()
    written = RelocationReport.of(relocation)
    await acreate_markdown_artifact(
        key=artifact_key("relocation", destination),
        markdown=written.to_markdown(),
        description=f"What the relocation of {written.source} did",
    )
    if written.failures:
        await acreate_table_artifact(
            key=artifact_key("failures", destination),
            table=[_row(failure) for failure in written.failures],
            description=f"What failed of {written.source}",
        )
    _emit(written)
    numbers = metrics_of(written, relocation.meter.receipt())
    await asyncio.to_thread(tell, numbers, warn=get_run_logger().warning)
    log = get_run_logger().info if written.succeeded else get_run_logger().error
    log("%s", written)
    return written


def metrics_of(written: RelocationReport, receipt: Receipt) -> RunMetrics:
    return RunMetrics(
        names={"destination": written.destination},
        succeeded=written.succeeded,
        ended=time.time(),
        receipt=receipt,
        images={
            "copied": written.images_copied,
            "present": written.images_present,
            "failed": len(written.failures),
        },
    )


def _row(failure: ImageFailure) -> dict[str, str]:
    """The cause comes early: the UI doesn't wrap, and a whole reference fills a page."""
    return {
        "image": short(failure.image),
        "trying again": "may help" if failure.retryable else "won't help",
        "cause": failure.error,
        "reference": failure.image,
    }


def _emit(written: RelocationReport) -> None:
    payload = written.model_dump(mode="json")
    payload["failures"] = payload["failures"][:_EVENT_FAILURES]
    emit_event(
        event=FINISHED if written.succeeded else FAILED,
        resource={
            "prefect.resource.id": f"transship.relocation.{written.destination}",
            "prefect.resource.name": written.destination,
            "transship.source": written.source,
        },
        payload=payload,
    )
