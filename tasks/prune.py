"""Planning a prune, carrying it out, and telling what it did."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import msgspec
from prefect import task
from prefect.logging import get_run_logger

from oci.mirror.config import Mirror
from oci.mirror.run import opened
from oci.mirror.selection import keep_for
from oci.prune.execute import execute
from oci.prune.plan import PrunePlan, PruneRunReport, UnwantedManifest, UnwantedTag
from oci.prune.planner import make_prune_plan, remember
from oci.prune.policy import Keep
from oci.reference import StoreName
from oci.relocation.session import Session
from oci.units import counted, show_size
from tasks.artifacts.history import OtherLine, keep_overview
from tasks.artifacts.markdown import in_forms
from tasks.artifacts.pages import prune_page
from tasks.artifacts.report import emit, write_page, write_table
from tasks.blocks import read_mirrors
from tasks.run import ONCE, REPEATABLE, Run, Side, current, remembered


def in_words(plan: PrunePlan) -> str:
    """Says in one line what a plan deletes now."""
    tags = f" and {counted(len(plan.due_tags), 'tag')} of others" if plan.due_tags else ""
    waiting = f", {plan.waiting} within their grace period" if plan.waiting else ""
    return (
        f"{plan.destination}: {counted(len(plan.due_manifests), 'manifest')}{tags} to delete{waiting}, "
        f"{counted(plan.manifests_kept, 'manifest')} kept, at most {show_size(plan.bytes_to_free)} to free"
    )


def undone(plan: PrunePlan, outcome: str, note: str = "") -> PruneRunReport:
    """Returns the report of a run that deleted nothing."""
    return PruneRunReport(
        destination=plan.destination,
        outcome=outcome,
        note=note,
        planned=len(plan.due_manifests) + len(plan.due_tags),
        waiting=plan.waiting,
        kept=plan.manifests_kept,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunePolicy:
    """What stays. `mirrors` is the path of a file of mirrors on the machine of the run, or empty."""

    keep: Keep
    mirrors: str = ""
    vanished: bool = True

    async def now(self, run: Run, destination: StoreName) -> Keep:
        """Adds what all mirrors to the destination take at this moment. Raises what reading them and their sources
        raises."""
        if not self.mirrors:
            return self.keep
        config = await run.in_thread(read_mirrors, self.mirrors)
        of_run = run.sides["destination"]
        side = Side(credentials=(*of_run.credentials, *config.credentials), anonymous=of_run.anonymous)
        reached = {name: await side.access(name) for name in ("source", "destination")}

        def open_mirror(mirror: Mirror) -> Session:
            return opened(config, [mirror], lambda name, _: reached[name], run.cancel)

        return self.keep.and_also(
            await run.in_thread(keep_for, config, destination, open_mirror, vanished=self.vanished)
        )


@task(name="plan prune", task_run_name="plan prune of {destination}", **REPEATABLE)
async def plan_prune(destination: StoreName, policy: PrunePolicy, grace_seconds: float) -> PrunePlan:
    """What the destination has beyond the policy, as a table artifact too.

    Kept for the flow run: what goes on when a person has approved is the plan that this person has seen. With a grace
    period, since when things are unwanted is written into the destination.
    """
    run = current(Run)

    async def make() -> str:
        session = await run.session()
        keep = await policy.now(run, destination)
        grace = timedelta(seconds=grace_seconds)

        def look() -> PrunePlan:
            plan = make_prune_plan(session, destination, keep, grace=grace)
            if grace:
                remember(session, destination, plan)
            return plan

        plan = await run.in_thread(look)
        rows = [_row(each.kind, ", ".join(each.tags), str(each.digest), each) for each in plan.manifests]
        rows += [_row("tag alone", each.tag, f"{each.digest} stays: {each.because}", each) for each in plan.tags]
        await write_table("prune-plan", str(destination), rows, in_words(plan))
        for warning in (*plan.warnings, *plan.unknown):
            get_run_logger().warning("%s", in_forms(warning))
        return plan.to_json()

    plan = PrunePlan.from_json(await remembered("prune-plan", make))
    get_run_logger().info("%s", in_words(plan))
    return plan


def _row(kind: str, tags: str, digest: str, unwanted: UnwantedManifest | UnwantedTag) -> dict[str, str]:
    return {
        "What": kind,
        "Tags": tags,
        "Digest": digest,
        "Unwanted since": f"{unwanted.since:%Y-%m-%d %H:%M}",
        "State": "to delete" if unwanted.due else "waiting",
    }


@task(name="delete", task_run_name="delete from {destination}", **ONCE)
async def carry_out(destination: StoreName, plan: PrunePlan, policy: PrunePolicy, note: str = "") -> PruneRunReport:
    """Looks again, and deletes what the plan says and what is unwanted still; what mirrors take by now is asked anew.
    Not run again by itself: a new run makes a new plan."""
    run = current(Run)
    keep = await policy.now(run, destination)
    report = await run.in_thread(execute, await run.session(), plan, keep=keep)
    return PruneRunReport.of(plan, report, note)


@task(name="report prune", task_run_name="report {destination}", **ONCE)
async def report_prune(destination: StoreName, written: PruneRunReport) -> PruneRunReport:
    """Writes the report artifact and emits `transship.prune.finished`, `.denied` or `.failed`, with the report as
    payload."""
    await write_page("prune", str(destination), prune_page(written), f"What the prune of {destination} did")
    await keep_overview({}, OtherLine(what=f"prune {destination}", succeeded=written.outcome != "failed"))
    ending = written.outcome if written.outcome in ("denied", "failed") else "finished"
    emit(f"transship.prune.{ending}", str(destination), msgspec.to_builtins(written))
    log = get_run_logger().error if ending == "failed" else get_run_logger().info
    log("%s", written)
    return written
