"""Sending work to other machines: one flow run of a deployment for each job, watched until it has ended, and sent again
when it was lost.

Any worker may take any of them, so a job must be harmless to do twice: a run that is thought to be lost may be alive
behind a broken line. Nobody has to set up anything for a lost run to be noticed."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterId,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Cancelling, Crashed

from oci.errors import InvalidInput
from oci.meter import unheard
from tasks.artifacts.report import Heartbeat, read_heartbeats, warned

OPEN = 100
"""Runs that wait or work at a time: the Prefect server lists so many at once."""

_ORPHANED = "the run that sent it has ended"
_PATIENT = 60.0
"""Seconds a run may wait for a worker before that is worth a line in the log."""
UNKNOWN_START = 15.0
"""Seconds that a helper is thought to take to start where none has started before."""
_RECENT = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Where work is sent, how many may help a run with it, and when it counts as lost."""

    deployment: str
    """`FLOW/DEPLOYMENT` of a flow that keeps an account (tasks.artifacts.report.heartbeats)."""
    helpers: int = OPEN
    """Helpers of a run at a time, at the most."""
    always: bool = False
    """Starts all of them at the beginning, without a look at the pace."""
    retries: int = 3
    """How often a lost job is sent again."""
    lost_after: float = 90.0
    """Seconds without a sign of life."""
    start_within: float = 600.0
    """Seconds that a worker may take from claiming a run to its start: an image may have to be pulled."""
    look_every: float = 2.0
    """Seconds between two looks at all runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one run is to do; `parameters` are those of its flow."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """What became of a job. `end` is the state of its last run, CRASHED for one that was lost, and None where the
    Prefect server made none; `message` is the last word of the run, in the UI's own terms."""

    end: StateType | None
    message: str
    account: Heartbeat = field(default_factory=Heartbeat)
    run: UUID | None = None


async def run_on_fleet(
    jobs: Sequence[Job],
    fleet: Fleet,
    *,
    again: Callable[[], bool] = lambda: True,
    on_account: Callable[[UUID, Heartbeat], None] = unheard,
    on_end: Callable[[JobEnd], Awaitable[None]] | None = None,
    on_count: Callable[[int], None] = unheard,
    is_over: Callable[[], bool] = lambda: False,
) -> list[JobEnd]:
    """Has every job done by the fleet and gives how each ended, in order. One that fails, or that the Prefect server
    makes no run for, doesn't stop the others.

    Call it inside a flow: the runs are its subflows. When the caller is cancelled, or fails, they are cancelled too;
    where `is_over` says that nothing is left to do, only those that haven't begun: the others end by themselves.
    `again` says whether anything is left to do of a job whose run was lost. `on_account` gets the heartbeat
    of a run, as often as that changes. `on_end` gets the end of every run, before a lost job is sent again, and every
    refusal; `on_count` how many runs may be at work, as often as that changes: those that wait for a worker for long
    aren't.
    """
    watch = _Watch(fleet, on_account, on_count)
    slots = asyncio.Semaphore(OPEN)

    async def carry(job: Job) -> JobEnd:
        number = 0
        async with slots:
            while True:
                end = await watch.send(job, number)
                if on_end is not None:
                    await on_end(end)
                # A run that failed after it had come to the end of its work has tried by itself what could be tried.
                is_lost = end.end is StateType.CRASHED or (end.end is StateType.FAILED and not end.account.closed)
                if not is_lost or not again() or number == fleet.retries:
                    return end
                get_run_logger().warning("%s: %s; it is sent again", job.name, end.message)
                number += 1

    try:
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(watch.look())
            async with asyncio.TaskGroup() as carrying:
                ends = [carrying.create_task(carry(job)) for job in jobs]
            watching.cancel()
    finally:
        await watch.cancel(begun=not is_over())
    return [end.result() for end in ends]


async def find_deployment(name: str) -> UUID:
    """Returns the id of `FLOW/DEPLOYMENT`. Raises InvalidInput when there is none."""
    async with get_client() as client:
        try:
            return (await client.read_deployment_by_name(name)).id
        except ObjectNotFound as error:
            raise InvalidInput(
                f"there is no deployment {name!r} to send work to",
                hint="deploy the flows, or leave `fleet` out to do all of it in this run",
            ) from error


async def recent_start(deployment: UUID) -> float:
    """Returns the seconds that the last runs of a deployment took to start, the median of at most 10."""
    async with get_client() as client:
        runs = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                deployment_id=FlowRunFilterDeploymentId(any_=[deployment]),
                start_time=FlowRunFilterStartTime(is_null_=False),
            ),
            sort=FlowRunSort.START_TIME_DESC,
            limit=_RECENT,
        )
    seconds = [
        (run.start_time - run.expected_start_time).total_seconds()
        for run in runs
        if run.start_time and run.expected_start_time
    ]
    return statistics.median(seconds) if seconds else UNKNOWN_START


def refusal(error: Exception) -> str:
    """Returns what a report says of a request that the Prefect server didn't carry out."""
    first_line, *_ = [*str(error).splitlines(), type(error).__name__]
    return f"the Prefect server refused: {first_line}"


@dataclass(slots=True, kw_only=True)
class _Open:
    """A run that hasn't ended, as it was when last looked at."""

    job: Job
    ended: asyncio.Future[JobEnd] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    sign: object = None
    """Changes with every sign of life."""
    since: float = field(default_factory=time.monotonic)
    account: Heartbeat = field(default_factory=Heartbeat)
    waiting_is_known: bool = False


class _Watch:
    """Looks at all open runs together, so that a hundred cost no more requests than one."""

    def __init__(
        self, fleet: Fleet, on_account: Callable[[UUID, Heartbeat], None], on_count: Callable[[int], None]
    ) -> None:
        self._fleet = fleet
        self._on_account = on_account
        self._on_count = on_count
        self._open: dict[UUID, _Open] = {}

    async def send(self, job: Job, number: int) -> JobEnd:
        """Creates a run, for the first time with `number` 0, and waits for its end. When that is cancelled half way,
        the run may come to be nevertheless: it is waited for, so that it can be cancelled too."""
        name = job.name if number == 0 else f"{job.name}, sent again ({number})"
        sending = asyncio.create_task(
            arun_deployment(self._fleet.deployment, parameters=dict(job.parameters), flow_run_name=name, timeout=0)
        )
        try:
            run = await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.wait([sending])
            if not sending.cancelled() and sending.exception() is None:
                self._add(job, sending.result().id)
            raise
        except Exception as error:  # noqa: BLE001 - whatever the server's reason is, the other jobs go on
            get_run_logger().warning("%s gets no run: %s", job.name, refusal(error))
            return JobEnd(end=None, message=refusal(error))
        return await self._add(job, run.id).ended

    def _add(self, job: Job, run: UUID) -> _Open:
        open_run = self._open[run] = _Open(job=job)
        self._count()
        return open_run

    def _count(self) -> None:
        self._on_count(sum(not open_run.waiting_is_known for open_run in self._open.values()))

    async def look(self) -> None:
        async with get_client() as client:  # one for all looks: each new one asks for a CSRF token
            while True:
                await asyncio.sleep(self._fleet.look_every)
                if self._open:
                    await self._look(client)

    async def _look(self, client: PrefectClient) -> None:
        ids = list(self._open)
        try:
            by_id = FlowRunFilter(id=FlowRunFilterId(any_=ids))
            runs = {run.id: run for run in await client.read_flow_runs(flow_run_filter=by_id, limit=200)}
            accounts = await read_heartbeats(client, ids)
        except Exception as error:  # noqa: BLE001 - runs go on while the Prefect server is away, and so does this
            get_run_logger().warning("the Prefect server can't be asked how far the shards are: %s", error)
            for open_run in self._open.values():
                open_run.since = time.monotonic()
            return
        for number, open_run in list(self._open.items()):
            run = runs.get(number)
            if run is not None:
                self._note(run, open_run, accounts.get(number, open_run.account))
                await self._judge(client, run, open_run)
            elif number in ids:
                self._finish(number, open_run, StateType.CANCELLED, "its run was deleted")

    def _note(self, run: FlowRun, open_run: _Open, account: Heartbeat) -> None:
        sign = (run.state and run.state.id, account.beat)
        if sign != open_run.sign:
            open_run.sign, open_run.since, open_run.account = sign, time.monotonic(), account
            if open_run.waiting_is_known:
                open_run.waiting_is_known = False
                self._count()
            if account.body:
                self._on_account(run.id, account)
        elif (
            not open_run.waiting_is_known
            and run.state_type is StateType.SCHEDULED
            and time.monotonic() - open_run.since > _PATIENT
        ):
            open_run.waiting_is_known = True
            self._count()
            get_run_logger().warning(
                "%s waits for a worker: does one run for the work pool %s, with a free place?",
                open_run.job.name,
                run.work_pool_name,
            )

    async def _judge(self, client: PrefectClient, run: FlowRun, open_run: _Open) -> None:
        """Takes a run that has ended, or was lost, from those that are open. A run that waits for its turn may do so
        for ever; one that was begun has to go on."""
        if run.state is not None and run.state.type in TERMINAL_STATES:
            self._finish(run.id, open_run, run.state.type, run.state.message or run.state.name or "")
            return
        patience: dict[StateType | None, float] = {
            StateType.RUNNING: self._fleet.lost_after,
            StateType.CANCELLING: self._fleet.lost_after,
            StateType.PENDING: self._fleet.start_within,
        }
        silent = time.monotonic() - open_run.since
        if silent <= patience.get(run.state_type, math.inf):
            return
        silence = f"no sign of life for {silent:.0f} s"
        with warned("the lost run %s couldn't be ended: %s", run.id):
            # The UI would show it as running for ever, and it might start after all.
            await client.set_flow_run_state(run.id, Crashed(message=silence), force=True)
        self._finish(run.id, open_run, StateType.CRASHED, silence)

    def _finish(self, run: UUID, open_run: _Open, end: StateType, message: str) -> None:
        del self._open[run]
        self._count()
        if not open_run.ended.cancelled():  # by the end of the task that waits for it, while the server was asked
            open_run.ended.set_result(JobEnd(end=end, message=message, account=open_run.account, run=run))

    async def cancel(self, *, begun: bool = True) -> None:
        """Asks for the end of every run that is still open: a worker carries that out within seconds. One that was only
        claimed has no process yet that would, and is ended at once. With `begun` False, only those."""
        runs = list(self._open)
        if not runs:
            return
        async with get_client() as client:
            for run in runs:
                with warned("the run %s couldn't be cancelled: %s", run):
                    now = await client.read_flow_run(run)
                    is_running = now.state_type is StateType.RUNNING
                    if now.state_type in TERMINAL_STATES or (is_running and not begun):
                        continue
                    state: State[None] = Cancelling(message=_ORPHANED) if is_running else Cancelled(message=_ORPHANED)
                    await client.set_flow_run_state(run, state, force=not is_running)
