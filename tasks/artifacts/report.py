"""What a run leaves on the Prefect server: its progress while it works, then a page, a table, an event."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.events import emit_event
from prefect.logging import get_run_logger

from oci.units import percent

ROWS = 1000
"""Rows of a table artifact."""
EVENT_NAMES = 100
"""Entries of a list that travel in an event: one has a size limit."""


def artifact_key(kind: str, destination: str) -> str:
    """A key of `[a-z0-9-]` that is the same for every run to a destination, so that the UI keeps a history of it."""
    slug = re.sub(r"[^a-z0-9]+", "-", destination.lower()).strip("-")
    return f"{kind}-{slug}"[:200]


OVERVIEW = "transship-overview"
"""Key of the artifact with all mirrors; see tasks.artifacts.history."""
_TO_OVERVIEW = f"\n[All mirrors and the last runs](../key/{OVERVIEW})\n"
"""Relative to the pages of an artifact and of a key, which are below `/artifacts/` in both versions of the UI."""


async def write_page(kind: str, name: str, markdown: str, description: str) -> None:
    """Writes a page of a run, with a link to the overview."""
    await acreate_markdown_artifact(
        key=artifact_key(kind, name), markdown=markdown + _TO_OVERVIEW, description=description
    )


async def write_table(kind: str, name: str, rows: Iterable[Mapping[str, Any]], description: str) -> None:
    table = [dict(row) for row in rows][:ROWS]
    await acreate_table_artifact(key=artifact_key(kind, name), table=table, description=description)


REFUSED = "transship.signature.refused"
"""The event for an image that the policy of signatures refuses."""


def emit(event: str, name: str, payload: Mapping[str, Any], **labels: str) -> None:
    """`transship.KIND.ENDING` on the resource `transship.KIND.NAME`. Lists in the payload are shortened."""
    kind, _, _ = event.rpartition(".")
    emit_event(
        event=event,
        resource={"prefect.resource.id": f"{kind}.{name}", "prefect.resource.name": name, **labels},
        payload={key: value[:EVENT_NAMES] if isinstance(value, list) else value for key, value in payload.items()},
    )


SHOWN_EVERY = 3.0
"""Seconds between updates of this process, at least: each costs the server some 12 ms."""
STEP = 1.0
"""Points of percent that an update shows, at least: a bar has no smaller ones."""


@asynccontextmanager
async def percent_shown(key: str, description: str, percent: Callable[[], float]) -> AsyncIterator[None]:
    """Keeps a progress artifact while the block runs; `percent` says how far it is. A run makes a hundred updates at
    the most, and one at its end."""
    artifact = await acreate_progress_artifact(progress=0.0, key=key, description=description)
    shown, has_warned = 0.0, False

    async def update() -> None:
        nonlocal shown, has_warned
        now = percent()
        if abs(now - shown) < STEP:
            return
        try:
            await aupdate_progress_artifact(artifact, progress=now)
            shown = now
        except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is, the copy goes on
            if not has_warned:
                get_run_logger().warning("progress can't be shown for now: %s", error)
            has_warned = True

    async def last() -> None:
        await aupdate_progress_artifact(artifact, progress=percent())

    _WATCHED.add(artifact)
    try:
        async with meanwhile(update, lambda: SHOWN_EVERY * len(_WATCHED), last):
            yield
    finally:
        _WATCHED.discard(artifact)


_WATCHED: set[UUID] = set()


@asynccontextmanager
async def meanwhile(
    work: Callable[[], Awaitable[None]],
    pause: Callable[[], float],
    last: Callable[[], Awaitable[None]] | None = None,
) -> AsyncIterator[None]:
    """Repeats `work` while the block runs, after so many seconds each time, and does `last` after it, unless the block
    raised. What is on its way is awaited before: the server could take it after the last one."""
    ended = asyncio.Event()

    async def repeat() -> None:
        while not await _is_set(ended, pause()):
            await work()

    repeating = asyncio.create_task(repeat())
    try:
        yield
        if last is not None:
            ended.set()
            await repeating
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])
    if last is not None:
        await last()


async def _is_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits so long for the event at most."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


@dataclass(slots=True)
class BytesMoving:
    """Progress of one transfer: `count` returns how many bytes have moved, `expect` takes how many are still to
    come."""

    count: Callable[[], int]
    expected: int | None = None

    def expect(self, size: int) -> None:
        self.expected = (self.expected or 0) + size

    def percent(self) -> float:
        return 0.0 if self.expected is None else round(percent(self.count(), self.expected), 1)
