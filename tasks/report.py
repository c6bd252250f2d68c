"""Telling what a run did: an artifact to read, a list to work with, an event to act on, numbers for Prometheus."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterable, Mapping
from typing import Any

from prefect import task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger

from oci.meter import Receipt
from oci.metrics import RunMetrics, tell
from oci.relocation.report import ImageFailure, RelocationReport, short_subject
from tasks.pages import relocation_page
from tasks.relocate import RelocationRun
from tasks.retries import ONCE
from tasks.run import current

ROWS = 1000
"""Rows of a table artifact."""
EVENT_NAMES = 100
"""Entries of a list that travel in an event: one has a size limit."""


def artifact_key(kind: str, destination: str) -> str:
    """A key of `[a-z0-9-]` that is the same for every run to a destination, so that the UI keeps a history of it."""
    slug = re.sub(r"[^a-z0-9]+", "-", destination.lower()).strip("-")
    return f"{kind}-{slug}"[:200]


async def write_page(kind: str, name: str, markdown: str, description: str) -> None:
    await acreate_markdown_artifact(key=artifact_key(kind, name), markdown=markdown, description=description)


async def write_table(kind: str, name: str, rows: Iterable[Mapping[str, Any]], description: str) -> None:
    table = [dict(row) for row in rows][:ROWS]
    await acreate_table_artifact(key=artifact_key(kind, name), table=table, description=description)


def emit(event: str, name: str, payload: Mapping[str, Any], **labels: str) -> None:
    """`transship.KIND.ENDING` on the resource `transship.KIND.NAME`. Lists in the payload are shortened."""
    kind, _, _ = event.rpartition(".")
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"{kind}.{name}", "prefect.resource.name": name, **labels},
        payload={key: value[:EVENT_NAMES] if isinstance(value, list) else value for key, value in payload.items()},
    )


@task(name="report", task_run_name="report {destination}", **ONCE)
async def report(destination: str) -> RelocationReport:  # noqa: ARG001 - shown in the UI
    """Writes the report artifact, the table of failures when there are any, and emits `transship.relocation.finished`
    or `transship.relocation.failed` with the report as payload. Writes metrics where the worker's environment says
    so."""
    run = current(RelocationRun)
    written = run.report()
    where = written.archive[0] if written.archive else run.destination
    kind = "export" if written.archive_facts else "relocation"
    await write_page(kind, where, relocation_page(written), f"What the relocation of {written.source} did")
    if written.failures:
        await write_table("failures", where, map(_row, written.failures), f"What failed of {written.source}")
    ending = "finished" if written.succeeded else "failed"
    emit(f"transship.relocation.{ending}", where, written.to_dict(), **{"transship.source": written.source})
    await asyncio.to_thread(tell, metrics_of(written, where, run.receipt()), warn=get_run_logger().warning)
    log = get_run_logger().info if written.succeeded else get_run_logger().error
    log("%s", written)
    return written


def metrics_of(written: RelocationReport, destination: str, receipt: Receipt) -> RunMetrics:
    return RunMetrics(
        names={"destination": destination},
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
        "image": short_subject(failure.image),
        "trying again": "may help" if failure.retryable else "won't help",
        "cause": failure.error,
        "reference": failure.image,
    }
