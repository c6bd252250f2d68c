"""What a run leaves on the Prefect server: signs of life and its progress while it works, then a page, a table, an
event.

Signs of life are an artifact that the process of the run writes straight to the server. Events, such as Prefect's own
heartbeats, may be dropped by a busy server, and results stay on the machine that made them. The heartbeat of a run that
works for another also carries what the run has done so far.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    Artifact,
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import deployment

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


@contextmanager
def warned(message: str, *values: object) -> Iterator[None]:
    """Makes a warning of whatever the Prefect server's trouble is: no work ends for what it shows, or doesn't."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - see above
        get_run_logger().warning(message, *values, error)


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
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), pause())
                return
            await work()

    repeating = asyncio.create_task(repeat())
    try:
        yield
        if last is not None:
            ended.set()
            await repeating
            await last()
    finally:
        repeating.cancel()
        await asyncio.wait([repeating])


KIND = "heartbeat"
KEY = "signs-of-life"
"""The title of its card in Prefect's UI, where it has no key of its own. All runs share it, and each finds its own."""
DESCRIPTION = (
    "Signs of life: this run was at work when this was last updated. The automation that starts dead runs again looks "
    "at it."
)
PERIOD = 15.0
"""Seconds between the heartbeats of a run; each costs the server some 12 ms."""
REPORT_PERIOD = 5.0
"""Seconds between those of a run whose parent waits for what they carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heartbeat:
    """`beat` counts; `closed` means that the run came to the end of its work by itself; `body` is what it has done."""

    beat: int = 0
    closed: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def heartbeats(key: str, read: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Sends heartbeats while the block runs; `read` gives their body, in plain values. The last one is closed, unless
    the block raised."""
    async with get_client() as client:
        beats = _Beats(client, key, read)
        await beats.write(0)
        async with meanwhile(beats.send, lambda: REPORT_PERIOD, lambda: beats.write(-1, closed=True)):
            yield


@asynccontextmanager
async def signs_of_life() -> AsyncIterator[None]:
    """Sends heartbeats without a body while the block runs, where a worker runs it: no
    automation could start another run again. A run that is shorter than PERIOD sends none."""
    if deployment.id is None:
        yield
        return
    async with get_client() as client, meanwhile(_Beats(client, KEY, dict).send, lambda: PERIOD):
        yield


@dataclass(slots=True)
class _Beats:
    """The heartbeats of this run; the first makes their artifact."""

    client: PrefectClient
    key: str
    read: Callable[[], dict[str, Any]]
    artifact: UUID | None = None
    sent: int = 0

    async def send(self) -> None:
        self.sent += 1
        with warned("the Prefect server didn't take a heartbeat: %s"):
            await self.write(self.sent)

    async def write(self, beat: int, *, closed: bool = False) -> None:
        data = {"beat": beat, "closed": closed, "body": self.read()}
        if self.artifact is None:
            artifact = Artifact(type=KIND, key=self.key, data=data, description=DESCRIPTION)
            self.artifact = (await artifact.acreate()).id
        else:
            await self.client.update_artifact(self.artifact, ArtifactUpdate(data=data))


async def read_heartbeats(client: PrefectClient, runs: Sequence[UUID]) -> dict[UUID, Heartbeat]:
    """Returns the latest heartbeat of each of these flow runs, as far as it has sent any; of at most 200."""
    artifacts = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            type=ArtifactFilterType(any_=[KIND]), flow_run_id=ArtifactFilterFlowRunId(any_=list(runs))
        ),
        limit=200,
    )
    return {
        artifact.flow_run_id: Heartbeat(**artifact.data)
        for artifact in sorted(artifacts, key=lambda artifact: str(artifact.created))
        if artifact.flow_run_id is not None and isinstance(artifact.data, dict)
    }


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
