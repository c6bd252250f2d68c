"""Signs of life of a flow run: an artifact that its process writes straight to the Prefect server.

Events, such as Prefect's own heartbeats, may be dropped by a busy server, and results stay on the machine that made
them. The heartbeat of a run that works for another also carries what the run has done so far.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.artifacts import Artifact
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterType
from prefect.logging import get_run_logger
from prefect.runtime import deployment

from tasks.artifacts.report import meanwhile

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
        beats = _Beats(client, read, await _create(key, _data(0, read)))
        async with meanwhile(beats.send, lambda: REPORT_PERIOD, beats.close):
            yield


@asynccontextmanager
async def signs_of_life() -> AsyncIterator[None]:
    """Sends heartbeats without a body while the block runs, where a worker runs it: no
    automation could start another run again. A run that is shorter than PERIOD sends none."""
    if deployment.id is None:
        yield
        return
    async with get_client() as client, meanwhile(_Beats(client, dict).send, lambda: PERIOD):
        yield


@dataclass(slots=True)
class _Beats:
    """The heartbeats of this run; the first makes their artifact, where there is none yet."""

    client: PrefectClient
    read: Callable[[], dict[str, Any]]
    artifact: UUID | None = None
    sent: int = 0

    async def send(self) -> None:
        self.sent += 1
        try:
            await self._write(_data(self.sent, self.read))
        except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is, the work goes on
            get_run_logger().warning("the Prefect server didn't take a heartbeat: %s", error)

    async def close(self) -> None:
        await self._write(_data(-1, self.read, closed=True))

    async def _write(self, data: dict[str, Any]) -> None:
        if self.artifact is None:
            self.artifact = await _create(KEY, data)
        else:
            await self.client.update_artifact(self.artifact, ArtifactUpdate(data=data))


def _data(beat: int, read: Callable[[], dict[str, Any]], *, closed: bool = False) -> dict[str, Any]:
    return {"beat": beat, "closed": closed, "body": read()}


async def _create(key: str, data: dict[str, Any]) -> UUID:
    artifact = Artifact(type=KIND, key=key, data=data, description=DESCRIPTION)
    return (await artifact.acreate()).id


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
