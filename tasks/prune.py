"""Planning a prune, carrying it out, and telling what it did."""

from __future__ import annotations

from datetime import timedelta

from prefect import task
from prefect.logging import get_run_logger

from oci.digest import digest_of
from oci.prune.execute import execute
from oci.prune.keep import Keep
from oci.prune.plan import PrunePlan
from oci.prune.planner import make_prune_plan, remember
from oci.reference import parse_store
from oci.relocation.session import Session
from tasks.access import OneSided
from tasks.memory import remembered
from tasks.pages import prune_page
from tasks.prune_policy import Policy
from tasks.prune_report import PlannedPrune, PruneRunReport
from tasks.report import artifact_key, emit, write_page, write_table
from tasks.retries import ONCE, REPEATABLE
from tasks.run import current

EVENT = "transship.prune"
"""Followed by `.finished`, `.denied` or `.failed`."""


@task(
    name="plan prune",
    task_run_name="plan prune of {destination}",
    **REPEATABLE,
)
async def plan_prune(destination: str, policy: Policy, grace_seconds: float) -> PlannedPrune:
    """What the destination has beyond the policy, as a table artifact too.

    Kept for the flow run: what goes on when a person has approved is the plan that this person has seen. With a grace
    period, since when things are unwanted is written into the destination.
    """
    run = current(OneSided)

    async def make() -> PlannedPrune:
        session = await run.session()
        keep = await policy.now(run, destination)
        plan = await run.in_thread(_plan, session, destination, keep, timedelta(seconds=grace_seconds))
        planned = _planned(plan)
        await write_table("prune-plan", destination, _rows(plan), str(planned))
        for warning in (*plan.warnings, *plan.unknown):
            get_run_logger().warning("%s", warning)
        return planned

    planned = await remembered("prune-plan", PlannedPrune, make)
    get_run_logger().info("%s", planned)
    return planned


def _planned(plan: PrunePlan) -> PlannedPrune:
    return PlannedPrune(
        destination=plan.destination,
        manifests=len(plan.due_manifests),
        tags=len(plan.due_tags),
        waiting=plan.waiting,
        kept=plan.manifests_kept,
        bytes=plan.bytes_to_free,
        fingerprint=fingerprint(plan),
        document=plan.to_json(),
    )


def _plan(session: Session, destination: str, keep: Keep, grace: timedelta) -> PrunePlan:
    name = parse_store(destination)
    plan = make_prune_plan(session, name, keep, grace=grace)
    if grace:
        remember(session, name, plan)
    return plan


def fingerprint(plan: PrunePlan) -> str:
    """Of all that a plan deletes, names included: what a person approves."""
    due = [f"{one.digest} {' '.join(one.tags)}" for one in plan.due_manifests]
    due += [f"{one.tag}@{one.digest}" for one in plan.due_tags]
    return digest_of("\n".join([plan.destination, *sorted(due)]).encode()).partition(":")[2][:32]


def plan_key(destination: str) -> str:
    """Of the artifact with the plan."""
    return artifact_key("prune-plan", destination)


def _rows(plan: PrunePlan) -> list[dict[str, str]]:
    rows = [
        {
            "What": one.kind,
            "Tags": ", ".join(one.tags),
            "Digest": str(one.digest),
            "Unwanted since": f"{one.since:%Y-%m-%d %H:%M}",
            "State": "to delete" if one.due else "waiting",
        }
        for one in plan.manifests
    ]
    return rows + [
        {
            "What": "tag alone",
            "Tags": one.tag,
            "Digest": f"{one.digest} stays: {one.because}",
            "Unwanted since": f"{one.since:%Y-%m-%d %H:%M}",
            "State": "to delete" if one.due else "waiting",
        }
        for one in plan.tags
    ]


@task(name="delete", task_run_name="delete from {destination}", **ONCE)
async def carry_out(destination: str, planned: PlannedPrune, policy: Policy, note: str = "") -> PruneRunReport:
    """Looks again, and deletes what the plan says and what is unwanted still; what mirrors take by now is asked anew.
    Not run again by itself: whoever runs it again makes a new plan."""
    run = current(OneSided)
    plan = PrunePlan.from_json(planned.document)
    keep = await policy.now(run, destination)
    report = await run.in_thread(execute, await run.session(), plan, keep=keep)
    return PruneRunReport.of(plan, report, note)


@task(name="report prune", task_run_name="report {destination}", **ONCE)
async def report_prune(destination: str, written: PruneRunReport) -> PruneRunReport:
    """Writes the report artifact and emits `transship.prune.finished`, `.denied` or `.failed`, with the report as
    payload."""
    await write_page("prune", destination, prune_page(written), f"What the prune of {destination} did")
    ending = written.outcome if written.outcome in ("denied", "failed") else "finished"
    emit(f"{EVENT}.{ending}", destination, written.model_dump(mode="json"))
    log = get_run_logger().error if ending == "failed" else get_run_logger().info
    log("%s", written)
    return written
