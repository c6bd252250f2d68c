"""Whether helpers make a run faster, and how many: from what was measured, not from sizes alone."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.sorting import FlowRunSort

from oci.units import counted

UNKNOWN_START = 15.0
"""Seconds that a helper is thought to take to start where none has started before."""
_RECENT = 10
_FIRST_LOOK = 3.0
"""Seconds of work before its pace says anything."""
_LEAST_SAVING = 2.0
"""Seconds that a helper has to save, to be worth its process and its requests to the Prefect server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a run. `progress` and `remaining` are in one unit, whatever it is; times in seconds."""

    elapsed: float
    progress: float
    remaining: float
    """What this run has not begun."""
    start: float
    """What helpers took lately from being sent to their first line."""
    most: int
    """Helpers that may be started."""
    busy: float = 0.0
    """What this run has begun takes at least so long, whoever does the rest: one slow image among many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many helpers are started, and why not more or fewer. `pace` is what this run does in a second."""

    helpers: int
    reason: str
    pace: float = 0.0


def decide(outlook: Outlook) -> Decision:
    """Counts how many helpers each save some seconds, when this run goes on at its pace and each helper has the same.

    Alone, the rest takes L seconds. N helpers that start after S seconds leave S + (L - S) / (N + 1), and nothing ends
    before what is begun."""
    if outlook.most < 1:
        return Decision(helpers=0, reason="done by this run alone: no helper is allowed")
    if outlook.elapsed < _FIRST_LOOK or outlook.progress <= 0:
        return Decision(helpers=0, reason="done by this run alone: it ended before its pace was known")
    pace = outlook.progress / outlook.elapsed
    alone, start = outlook.remaining / pace, outlook.start

    def lasts(helpers: int) -> float:
        return max(outlook.busy, start + (alone - start) / (helpers + 1) if helpers else alone)

    helpers = 0
    while helpers < outlook.most and lasts(helpers) - lasts(helpers + 1) >= _LEAST_SAVING:
        helpers += 1
    measured = f"{alone:.0f} s of work were left at its pace, and a helper starts in {start:.0f} s"
    if not helpers:
        begun = f"; what was begun takes {outlook.busy:.0f} s" if outlook.busy > start else ""
        return Decision(helpers=0, reason=f"done by this run alone: {measured}{begun}", pace=pace)
    reason = f"shared with {counted(helpers, 'helper')}: {measured}, so that about {lasts(helpers):.0f} s were expected"
    return Decision(helpers=helpers, reason=reason, pace=pace)


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
