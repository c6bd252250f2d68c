"""The running account of a flow run that works for another: what it has done so far, and a sign of life.

It is an artifact, written straight to the Prefect server: results stay on the machine that made them, and events, such
as Prefect's own heartbeats, may be dropped by a busy server.
"""

from __future__ import annotations

import asyncio
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

KIND = "account"
PERIOD = 5.0
"""Seconds between signs of life: each costs the server some 12 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """`beat` counts the signs of life; `closed` means that the run came to the end of its work by itself."""

    beat: int = 0
    closed: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)


@asynccontextmanager
async def account_kept(key: str, read: Callable[[], dict[str, Any]]) -> AsyncIterator[None]:
    """Keeps the account while the block runs: `read` gives its body, in plain values. It is closed at the end, unless
    the block raised."""

    def data(beat: int, *, closed: bool = False) -> dict[str, Any]:
        return {"beat": beat, "closed": closed, "body": read()}

    artifact = await Artifact(type=KIND, key=key, data=data(0), description="What this run has done so far").acreate()
    beating = asyncio.create_task(_beat(artifact.id, data))
    try:
        yield
    finally:
        beating.cancel()
    async with get_client() as client:
        await client.update_artifact(artifact.id, ArtifactUpdate(data=data(-1, closed=True)))


async def _beat(artifact: UUID, data: Callable[[int], dict[str, Any]]) -> None:
    beat = 0
    async with get_client() as client:
        while True:
            await asyncio.sleep(PERIOD)
            beat += 1
            try:
                await client.update_artifact(artifact, ArtifactUpdate(data=data(beat)))
            except Exception as error:  # noqa: BLE001 - whatever the Prefect server's trouble is, the work goes on
                get_run_logger().warning("no sign of life could be given: %s", error)


async def read_accounts(client: PrefectClient, runs: Sequence[UUID]) -> dict[UUID, Account]:
    """The accounts of these flow runs, as far as they keep one; of at most 200."""
    found = await client.read_artifacts(
        artifact_filter=ArtifactFilter(
            type=ArtifactFilterType(any_=[KIND]), flow_run_id=ArtifactFilterFlowRunId(any_=list(runs))
        ),
        limit=200,
    )
    accounts = {}
    for artifact in sorted(found, key=lambda one: str(one.created)):
        if artifact.flow_run_id is not None and isinstance(artifact.data, dict):
            accounts[artifact.flow_run_id] = Account(**artifact.data)
    return accounts
