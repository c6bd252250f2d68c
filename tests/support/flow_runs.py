"""Flow runs as the Prefect server records them: started, read, waited for."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient, SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.settings import PREFECT_API_URL

from tests.support.waiting import until

T = TypeVar("T")

_readers: dict[str | None, SyncPrefectClient] = {}


def reader() -> SyncPrefectClient:
    """A client of the server that is set, for what is read again and again: it stays connected. A new one costs three
    requests instead of one, and twenty times the CPU."""
    api = PREFECT_API_URL.value()
    return _readers.get(api) or _readers.setdefault(api, get_client(sync_client=True))


def with_client(work: Callable[[PrefectClient], Coroutine[Any, Any, T]]) -> T:
    """Runs `work` in an event loop of its own, with a client of the server that is set."""

    async def main() -> T:
        async with get_client() as client:
            return await work(client)

    return asyncio.run(main())


def start_run(flow: str, parameters: dict[str, Any]) -> UUID:
    """Starts the deployment of the flow's name, as its form does, and gives the id of the run."""

    async def work(client: PrefectClient) -> UUID:
        deployment = await client.read_deployment_by_name(f"{flow}/{flow}")
        return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id

    return with_client(work)


def read_run(run: UUID) -> FlowRun:
    return reader().read_flow_run(run)


def state_of(run: UUID) -> str:
    """The name of the state, such as "Completed"."""
    state = read_run(run).state
    return str(state.name) if state else ""


def is_over(run: UUID) -> bool:
    state = read_run(run).state
    return bool(state and state.is_final())


def is_let_go(run: UUID) -> bool:
    """Whether the worker has said all that it says of a process that ended. Of one that was killed it reports a crash
    twice, before and after it has looked for hooks (Prefect 3.8 and 3.9): the second report ends a run that was begun
    anew in between, whose place of its deployment it gives back."""
    ended = {"name": ["prefect.worker.executed-flow-run"]}
    wanted = {"filter": {"event": ended, "related": {"id": [f"prefect.flow-run.{run}"]}}}

    return bool(reader().request("POST", "/events/filter", json=wanted).json()["events"])


def task_runs(run: UUID) -> list[TaskRun]:
    by_run = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    return reader().read_task_runs(flow_run_filter=by_run)


async def newest_run(client: PrefectClient) -> FlowRun:
    """The last one that a program has started. The server is shared: runs that schedules of other tests have planned
    for tomorrow, or that workers carry out, aren't meant."""
    started = FlowRunFilter(
        start_time=FlowRunFilterStartTime(is_null_=False), deployment_id=FlowRunFilterDeploymentId(is_null_=True)
    )
    [run] = await client.read_flow_runs(flow_run_filter=started, sort=FlowRunSort.START_TIME_DESC, limit=1)
    return run


def newest_run_with_tasks(recorded: Callable[[list[TaskRun]], bool]) -> tuple[FlowRun, list[TaskRun]]:
    """The newest flow run with its task runs, as soon as `recorded` says that the server has recorded enough of them:
    it does so in the background, after the run."""
    run = with_client(newest_run)

    def enough() -> list[list[TaskRun]]:
        known = task_runs(run.id)
        return [known] if recorded(known) else []

    [known] = until(f"the task runs of {run.name}", enough, every=0.1)
    return with_client(newest_run), known


def children_of(process: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True, check=False)
    children = [int(pid) for pid in listed.stdout.split()]
    return [*children, *(below for child in children for below in children_of(child))]


def kill_machine(worker: subprocess.Popen[bytes]) -> int:
    """As if its plug was pulled: the worker, and the flow runs that it has started."""
    below = children_of(worker.pid)
    worker.kill()
    for process in below:
        os.kill(process, signal.SIGKILL)
    return len(below)


def put_limit(host: str, slots: int) -> None:
    """Makes the named limit of a registry."""
    wanted = GlobalConcurrencyLimitCreate(name=f"registry:{host}", limit=slots, active=True)
    with_client(lambda client: client.create_global_concurrency_limit(wanted))
