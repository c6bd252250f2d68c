"""What a run leaves on the Prefect server when it ends: a page, a table, an event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.events import emit_event

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
