"""Planning a prune, carrying it out, and telling what it did."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from prefect import task
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.mirror.config import Mirror, MirrorsConfig
from oci.mirror.run import opened
from oci.mirror.selection import keep_for
from oci.prune.execute import PruneRunReport, execute
from oci.prune.keep import Keep
from oci.prune.plan import PrunePlan
from oci.prune.planner import make_prune_plan, remember
from oci.reference import StoreName
from oci.relocation.session import Access, Session
from oci.units import counted, show_size
from tasks.access import OneSided, Side
from tasks.artifacts.history import OtherLine, keep_overview
from tasks.artifacts.markdown import in_forms
from tasks.artifacts.pages import prune_page
from tasks.artifacts.report import artifact_key, emit, write_page, write_table
from tasks.blocks import read_mirrors
from tasks.run import ONCE, REPEATABLE, current, remembered


class PlannedPrune(BaseModel):
    """A plan in numbers, and as the JSON of an `oci.prune.plan.PrunePlan`."""

    destination: str
    manifests: int
    tags: int
    waiting: int
    kept: int
    bytes: int
    """At most, when all that is due is deleted."""
    fingerprint: str
    """The same for two plans that delete the same."""
    document: str

    @property
    def is_empty(self) -> bool:
        """Nothing is to be deleted now."""
        return not (self.manifests or self.tags)

    def __str__(self) -> str:
        tags = f" and {counted(self.tags, 'tag')} of others" if self.tags else ""
        waiting = f", {self.waiting} within their grace period" if self.waiting else ""
        return (
            f"{self.destination}: {counted(self.manifests, 'manifest')}{tags} to delete{waiting}, "
            f"{counted(self.kept, 'manifest')} kept, at most {show_size(self.bytes)} to free"
        )


def undone(plan: PlannedPrune, outcome: str, note: str = "") -> PruneRunReport:
    """Returns the report of a run that deleted nothing."""
    return PruneRunReport(
        destination=plan.destination,
        outcome=outcome,
        note=note,
        planned=plan.manifests + plan.tags,
        waiting=plan.waiting,
        kept=plan.kept,
    )


class PrunePolicy(BaseModel):
    """`keep` is a Keep's `to_dict`; `mirrors` the path of a file of mirrors on the machine of the run, or empty."""

    keep: dict[str, Any]
    mirrors: str = ""
    vanished: bool = True

    async def now(self, run: OneSided, destination: StoreName) -> Keep:
        """Adds what all mirrors to the destination take at this moment. Raises what reading them and their sources
        raises."""
        keep = Keep.from_dict(self.keep)
        if not self.mirrors:
            return keep
        config = await run.in_thread(read_mirrors, self.mirrors)
        names = dict.fromkeys(registry.credentials for registry in config.registries.values() if registry.credentials)
        side = Side(credentials=(*run.side.credentials, *names), anonymous=run.side.anonymous)
        reached = {name: await side.access(name) for name in ("source", "destination")}
        return keep.and_also(await run.in_thread(self._mirrored, config, destination, reached, run))

    def _mirrored(
        self, config: MirrorsConfig, destination: StoreName, reached: dict[str, Access], run: OneSided
    ) -> Keep:
        def open_mirror(mirror: Mirror) -> Session:
            return opened(config, [mirror], lambda name, _: reached[name], run.cancel)

        return keep_for(config, destination, open_mirror, vanished=self.vanished)


EVENT = "transship.prune"
"""Followed by `.finished`, `.denied` or `.failed`."""


@task(name="plan prune", task_run_name="plan prune of {destination}", **REPEATABLE)
async def plan_prune(destination: StoreName, policy: PrunePolicy, grace_seconds: float) -> PlannedPrune:
    """What the destination has beyond the policy, as a table artifact too.

    Kept for the flow run: what goes on when a person has approved is the plan that this person has seen. With a grace
    period, since when things are unwanted is written into the destination.
    """
    run = current(OneSided)

    async def make() -> PlannedPrune:
        session = await run.session()
        keep = await policy.now(run, destination)
        plan = await run.in_thread(_plan, session, destination, keep, timedelta(seconds=grace_seconds))
        planned = PlannedPrune(
            destination=plan.destination,
            manifests=len(plan.due_manifests),
            tags=len(plan.due_tags),
            waiting=plan.waiting,
            kept=plan.manifests_kept,
            bytes=plan.bytes_to_free,
            fingerprint=plan.fingerprint,
            document=plan.to_json(),
        )
        await write_table("prune-plan", str(destination), _rows(plan), str(planned))
        for warning in (*plan.warnings, *plan.unknown):
            get_run_logger().warning("%s", in_forms(warning))
        return planned

    planned = await remembered("prune-plan", PlannedPrune, make)
    get_run_logger().info("%s", planned)
    return planned


def _plan(session: Session, destination: StoreName, keep: Keep, grace: timedelta) -> PrunePlan:
    plan = make_prune_plan(session, destination, keep, grace=grace)
    if grace:
        remember(session, destination, plan)
    return plan


def plan_key(destination: str) -> str:
    """Returns the key of the artifact with the plan."""
    return artifact_key("prune-plan", destination)


def _rows(plan: PrunePlan) -> list[dict[str, str]]:
    rows = [
        {
            "What": manifest.kind,
            "Tags": ", ".join(manifest.tags),
            "Digest": str(manifest.digest),
            "Unwanted since": f"{manifest.since:%Y-%m-%d %H:%M}",
            "State": "to delete" if manifest.due else "waiting",
        }
        for manifest in plan.manifests
    ]
    return rows + [
        {
            "What": "tag alone",
            "Tags": tag.tag,
            "Digest": f"{tag.digest} stays: {tag.because}",
            "Unwanted since": f"{tag.since:%Y-%m-%d %H:%M}",
            "State": "to delete" if tag.due else "waiting",
        }
        for tag in plan.tags
    ]


@task(name="delete", task_run_name="delete from {destination}", **ONCE)
async def carry_out(
    destination: StoreName, planned: PlannedPrune, policy: PrunePolicy, note: str = ""
) -> PruneRunReport:
    """Looks again, and deletes what the plan says and what is unwanted still; what mirrors take by now is asked anew.
    Not run again by itself: a new run makes a new plan."""
    run = current(OneSided)
    plan = PrunePlan.from_json(planned.document)
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
    emit(f"{EVENT}.{ending}", str(destination), msgspec.to_builtins(written))
    log = get_run_logger().error if ending == "failed" else get_run_logger().info
    log("%s", written)
    return written
