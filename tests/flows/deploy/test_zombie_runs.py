from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run
from prefect.states import Running

from flows.deploy.zombie_runs import rescue
from tasks.artifacts.report import heartbeats
from tests.support.prefect_server import PrefectServer
from tests.support.waiting import PATIENCE

FOREVER = 100 * PATIENCE


@flow
async def watched() -> str:
    """Has itself looked after, and sends heartbeats meanwhile."""
    run = UUID(str(flow_run.id))
    async with heartbeats("watched", dict):
        async with asyncio.timeout(PATIENCE):
            state: Any = await rescue(run, look_again_after_seconds=FOREVER, return_state=True)
    return str(state.message)


@flow
async def silent() -> tuple[str, str]:
    async with get_client() as client:
        run = await client.create_flow_run(watched, name="silent", state=Running())
        state: Any = await rescue(run.id, look_again_after_seconds=0.1, return_state=True)
        ended = await client.read_flow_run(run.id)
    return str(state.message), str(ended.state_name)


def test_a_live_run_is_watched_no_longer_than_until_its_next_heartbeat(prefect: PrefectServer) -> None:
    assert "is alive, or over" in asyncio.run(watched())


def test_a_silent_run_that_no_worker_runs_is_ended_and_stays_so(prefect: PrefectServer) -> None:
    said, state = asyncio.run(silent())

    assert "stays crashed" in said
    assert state == "Crashed"
