"""Runs that no process works on: those of a machine that died, and those that a worker claimed and never started.

Automations of the Prefect server notice them and start the flow `rescue`, which looks again before it acts: events may
be dropped or late, for example while a SQLite database is locked. A run that is dead is started again once, under the
same id: what it has done is found in place. A run of a fleet is only ended, because its parent sends it again.

Only runs with the tag `transship` are watched, which its deployments give them: they send a heartbeat every 30 seconds
(PREFECT_FLOWS_HEARTBEAT_FREQUENCY in their job variables).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect import flow
from prefect.automations import AutomationCore
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.events.actions import RunDeployment
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Completed, Crashed

from tasks.artifacts.report import PERIOD, read_heartbeats
from tasks.run import DRIFT

TAG = "transship"
RESCUE_TAG = "transship:rescue"
"""Tag of the runs of `rescue` itself."""
STARTED_AGAIN = "transship:started-again"
"""Tag of a run that was dead once: when it dies again, it stays so."""

RUNNING = "prefect.flow-run.Running"
HEARTBEAT = "prefect.flow-run.heartbeat"
_ALIVE_OR_OVER = frozenset(
    {HEARTBEAT}
    | {
        f"prefect.flow-run.{state}"
        for state in (
            *("Completed", "Failed", DRIFT, "TimedOut", "Cancelled", "Crashed"),
            *("Paused", "Suspended", "AwaitingRetry", "Scheduled"),
        )
    }
)
"""What may follow a heartbeat. RUNNING is not among it: that event may arrive late, after the first heartbeat."""

SILENT_AFTER = timedelta(minutes=5)
"""Ten heartbeats of 30 seconds. A database that is locked for two minutes delays them."""
PENDING_AFTER = timedelta(minutes=10)
"""An image may have to be pulled before a run starts."""
LOOK_AGAIN_AFTER = 3 * PERIOD
"""Seconds that `rescue` watches a run for a sign of life: a live run writes its heartbeat several times meanwhile."""
_LOOK_EVERY = 5.0
"""Seconds. A false alarm takes a worker's place no longer than until the next heartbeat."""


def zombie_automations(
    rescue_deployment: UUID, *, silent_after: timedelta = SILENT_AFTER, pending_after: timedelta = PENDING_AFTER
) -> tuple[AutomationCore, ...]:
    """Returns the automations that a server needs once; `rescue_deployment` is that of the flow `rescue`. Rescues are
    watched as well, with the full patience: a machine may die with a rescue on it."""
    return (
        *_automations("runs", TAG, rescue_deployment, silent_after, pending_after),
        *_automations("rescues", RESCUE_TAG, rescue_deployment, SILENT_AFTER, PENDING_AFTER),
    )


def _automations(
    runs: str, tag: str, rescue_deployment: UUID, silent_after: timedelta, pending_after: timedelta
) -> Iterator[AutomationCore]:
    watched: dict[str, Any] = {
        "threshold": 1,
        "for_each": {"prefect.resource.id"},
        "match": ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        "match_related": ResourceSpecification(
            {"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}
        ),
    }
    proactive: dict[str, Any] = {"posture": Posture.Proactive, **watched}
    triggers = {
        ("of dead machines", "that have sent no heartbeat for a while"): EventTrigger(
            after={RUNNING, HEARTBEAT}, expect=set(_ALIVE_OR_OVER), within=silent_after, **proactive
        ),
        ("that never start", "that a worker claimed and didn't start"): EventTrigger(
            after={"prefect.flow-run.Pending", "prefect.flow-run.Submitting"},
            expect={"prefect.flow-run.*"},
            within=pending_after,
            **proactive,
        ),
        ("that crashed", "whose process was killed"): EventTrigger(expect={"prefect.flow-run.Crashed"}, **watched),
    }
    start = RunDeployment(
        source="selected",
        deployment_id=rescue_deployment,
        parameters={"flow_run_id": "{{ flow_run.id | string }}"},  # Prefect makes JSON of it, which has no UUID
        job_variables=None,
    )
    for (which, why), trigger in triggers.items():
        yield AutomationCore(
            name=f"transship: {runs} {which}",
            description=f"Has {runs} looked after {why}.",
            trigger=trigger,
            actions=[start],
        )


_SignsOfLife = tuple[UUID | None, int]
"""What changes while a run is alive: its state, and its heartbeats."""


@flow(name="rescue", flow_run_name="look after {flow_run_id}", persist_result=False)
async def rescue(flow_run_id: UUID, look_again_after_seconds: float = LOOK_AGAIN_AFTER) -> State[None]:
    """Starts a run again whose process is dead, once. A run that is alive, over or deleted is left as it is.

    `flow_run_id` is the run; `look_again_after_seconds` is how long it may show no sign of life while this run watches.
    """
    async with get_client() as client:
        run, first = await _look(client, flow_run_id)
        if run is not None and run.state_type is not StateType.CRASHED:
            run, changed = await _watch(client, flow_run_id, first, look_again_after_seconds)
            if run is not None and changed and run.state_type is not StateType.CRASHED:
                return Completed(message=f"{run.name} is alive, or over: nothing is done")
        if run is None:
            return Completed(message=f"there is no run {flow_run_id} any more")
        is_over = run.state is not None and run.state.is_final() and run.state_type is not StateType.CRASHED
        if run.state is None or is_over or run.state.is_paused():
            return Completed(message=f"{run.name} is over, or waits: nothing is done")
        return Completed(message=await _start_again(client, run))


async def _watch(
    client: PrefectClient, flow_run_id: UUID, first: _SignsOfLife | None, seconds: float
) -> tuple[FlowRun | None, bool]:
    """Returns a run, and whether it has shown a sign of life: as soon as it has, or after so many seconds."""
    end = time.monotonic() + seconds
    while True:
        await asyncio.sleep(max(0.0, min(_LOOK_EVERY, end - time.monotonic())))
        run, signs = await _look(client, flow_run_id)
        if run is None or signs != first or time.monotonic() >= end:
            return run, signs != first


async def _look(client: PrefectClient, flow_run_id: UUID) -> tuple[FlowRun | None, _SignsOfLife | None]:
    try:
        run = await client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return None, None
    heartbeat = (await read_heartbeats(client, [flow_run_id])).get(flow_run_id)
    return run, (run.state.id if run.state else None, heartbeat.beat if heartbeat else 0)


async def _start_again(client: PrefectClient, run: FlowRun) -> str:
    """Returns what was done, in words."""
    if run.state_type is not StateType.CRASHED:
        silence: State[None] = Crashed(message="no sign of life: the machine is dead or cut off")
        await client.set_flow_run_state(run.id, silence, force=True)
    if run.parent_task_run_id is not None:
        return f"{run.name} is ended: the run that started it sends its work again"
    if run.deployment_id is None or STARTED_AGAIN in run.tags:
        return f"{run.name} stays crashed: {'it was started again once' if run.deployment_id else 'no worker runs it'}"
    await client.update_flow_run(run.id, tags=[*run.tags, STARTED_AGAIN])
    again: State[None] = AwaitingRetry(message="its process died: it is started again and sends what is missing")
    await client.set_flow_run_state(run.id, again)
    return f"{run.name} is started again"
