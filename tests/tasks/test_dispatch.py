from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from logging import getLogger
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Completed

from tasks.fleet import dispatch
from tasks.fleet.dispatch import Fleet, Job, run_on_fleet


class Server:
    """Answers as the Prefect server does, for a single run, which has ended when `answer` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = uuid.uuid4()
        self.asked = asyncio.Event()
        self.answer = asyncio.Event()
        for name in ("get_client", "arun_deployment", "find_deployment", "read_heartbeats"):
            monkeypatch.setattr(dispatch, name, getattr(self, name))
        monkeypatch.setattr(dispatch, "get_run_logger", getLogger)

    @asynccontextmanager
    async def get_client(self) -> AsyncIterator[Server]:
        yield self

    async def arun_deployment(self, *_: Any, **__: Any) -> SimpleNamespace:
        return SimpleNamespace(id=self.run)

    async def find_deployment(self, _: str) -> UUID:
        return uuid.uuid4()

    async def read_heartbeats(self, *_: Any) -> dict[UUID, Any]:
        return {}

    async def read_flow_runs(self, **_: Any) -> list[FlowRun]:
        self.asked.set()
        await self.answer.wait()
        return [await self.read_flow_run(self.run)]

    async def read_flow_run(self, run: UUID) -> FlowRun:
        return FlowRun(id=run, flow_id=uuid.uuid4(), state=Completed(), state_type=StateType.COMPLETED)


@pytest.mark.parametrize("turns", range(6))
def test_a_cancelled_fleet_ends_as_cancelled_also_when_a_run_is_seen_to_end_at_that_moment(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    async def main() -> None:
        server = Server(monkeypatch)
        fleet = Fleet(deployment="relocate-shard/fleet", look_every=0)
        running = asyncio.create_task(run_on_fleet([Job(name="a shard", parameters={})], fleet))
        await server.asked.wait()
        running.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        server.answer.set()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(main())
