"""Automations of the Prefect server that find runs which nobody carries out any more: those of a machine that died, and
those that a worker claimed and never started. A parent watches its own shards; these watch everything else, parents
too.

Only runs with the tag `transship` are meant, which its deployments give to theirs: they set the pace of their signs of
life themselves (PREFECT_FLOWS_HEARTBEAT_FREQUENCY, in their job variables), and what other projects run at the slower
default pace would be taken for dead.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from prefect.automations import AutomationCore
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

TAG = "transship"
RUNNING = "prefect.flow-run.Running"
HEARTBEAT = "prefect.flow-run.heartbeat"

_ALIVE_OR_OVER = frozenset(
    {HEARTBEAT}
    | {
        f"prefect.flow-run.{state}"
        for state in (
            *("Completed", "Failed", "TimedOut", "Cancelled", "Crashed"),
            *("Paused", "Suspended", "AwaitingRetry", "Scheduled"),
        )
    }
)
"""What may follow a sign of life. RUNNING is not among it: that event may come late, after the first sign."""

SILENT_AFTER = timedelta(seconds=90)
"""Three signs of life at the pace of 30 seconds, which is the fastest that Prefect has."""
PENDING_AFTER = timedelta(minutes=10)
"""An image may have to be pulled before a run starts."""


def lifelines(
    *, silent_after: timedelta = SILENT_AFTER, pending_after: timedelta = PENDING_AFTER
) -> tuple[AutomationCore, AutomationCore]:
    """To be put on the server once, by name."""
    return (
        _crash(
            "transship: runs of dead machines",
            "Ends runs that have given no sign of life for a while as crashed.",
            after=[RUNNING, HEARTBEAT],
            expect=_ALIVE_OR_OVER,
            within=silent_after,
            message="no sign of life: the machine is dead or cut off",
        ),
        _crash(
            "transship: runs that never start",
            "Ends runs that a worker claimed and didn't start as crashed.",
            after=["prefect.flow-run.Pending", "prefect.flow-run.Submitting"],
            expect=["prefect.flow-run.*"],
            within=pending_after,
            message="claimed by a worker, but never started",
        ),
    )


def _crash(
    name: str, description: str, *, after: Iterable[str], expect: Iterable[str], within: timedelta, message: str
) -> AutomationCore:
    """Ends a run of which one of `after` was heard and then, for so long, nothing of what is expected."""
    return AutomationCore(
        name=name,
        description=description,
        trigger=EventTrigger(
            after=set(after),
            expect=set(expect),
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
            ),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message=message, force=False)],
    )
