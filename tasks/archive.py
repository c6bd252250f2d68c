"""Writing a tarball: planned as a whole, written in groups of parts that are retried alone, named in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import UUID

import msgspec
from prefect import task
from prefect.artifacts import acreate_link_artifact
from prefect.client.schemas.objects import StateType
from prefect.logging import get_run_logger

from oci.archive.open import link_to
from oci.archive.options import ExportOptions
from oci.errors import Incomplete, IntegrityError, InvalidInput, StoreError
from oci.export.assembly import WriteReport
from oci.export.export import ArchiveReport, begin_archive, finish_archive, verify_written, write_parts
from oci.export.plan import ArchivePlan, PartGroup, is_written
from oci.export.planner import plan_archive
from oci.export.tar_plan import Part
from oci.meter import Receipt
from oci.relocation.report import ArchiveFacts, RelocationReport, Traffic
from oci.relocation.request import RelocationRequest
from oci.units import counted, show_size
from tasks.artifacts.markdown import in_forms
from tasks.artifacts.report import Heartbeat, artifact_key
from tasks.fleet.dispatch import Fleet, Job, find_deployment, run_on_fleet
from tasks.relocate import RelocationRun
from tasks.run import ONCE, REPEATABLE, current


class ExportRun(RelocationRun):
    """One archive being written. Nothing is pushed; the destination is where the archive is to be."""

    def __init__(
        self,
        request: RelocationRequest,
        options: ExportOptions,
        *,
        resume: bool = True,
        fingerprint: str = "",
        tickets: tuple[str, ...] = (),
        **how: Any,
    ) -> None:
        """With `resume`, it goes on with what an earlier run of the same archive has stored. `fingerprint` is that of a
        plan that another run has made, and of which this run writes a part; `tickets` are that run's, one for each
        volume. `how` is as for RelocationRun."""
        super().__init__(request, **how)
        self.options = options
        self.resume = resume
        self.fingerprint = fingerprint
        self.tickets = tickets
        self.archive: ArchivePlan | None = None
        self.unchanged = False
        """The very archive was there before."""
        self.stored: dict[tuple[int, int], int] = {}
        """Bytes of the parts that are in place, by volume and number."""
        self.stored_elsewhere: dict[str, int] = {}
        self.written: list[WriteReport] = []
        self.finished: ArchiveReport | None = None
        self.started = time.monotonic()

    @property
    def archive_planned(self) -> ArchivePlan:
        """Raises InvalidInput before the tarball is planned."""
        if self.archive is None:
            raise InvalidInput("no archive is planned yet", hint="run plan_tarball first")
        return self.archive

    @property
    def destination(self) -> str:
        """Returns where the archive is to be, also of a run that ends before the archive is planned or that splits it:
        pages, events and metrics of all runs to it have this name."""
        return str(self.relocation.request.destination.location)

    @property
    def bytes_stored(self) -> int:
        return sum(list(self.stored.values())) + sum(list(self.stored_elsewhere.values()))

    def report(self) -> RelocationReport:
        """Returns the report. What was copied in the store counts as mounted, and what an earlier run stored as
        skipped."""
        total, images = WriteReport.total(self.written), self.archive.images if self.archive else 0
        facts = self.archive.facts(unchanged=self.unchanged) if self.archive else ArchiveFacts()
        return msgspec.structs.replace(
            super().report(),
            archive=list(facts.locations),
            archive_facts=facts,
            published=self.finished is not None or self.unchanged,
            images_copied=images if self.finished is not None else 0,
            images_present=images if self.unchanged else 0,
            bytes=Traffic(written=total.sent, mounted=total.copied, skipped=total.kept),
        )


@task(name="plan tarball", task_run_name="plan tarball {location}", **REPEATABLE)
async def plan_tarball(location: str) -> bool:
    """Knows every byte's place before one is moved, and begins the archive, or finds the upload to go on with. Writes
    nothing, and gives False, when the very archive is there."""
    export = current(ExportRun)
    session, relocation = await export.session(), export.relocation
    plan = await export.in_thread(plan_archive, session, relocation.request, relocation.plan, export.options)
    export.archive = plan
    for warning in plan.warnings:
        get_run_logger().warning("%s", in_forms(warning))
    if export.fingerprint and export.fingerprint != plan.fingerprint:
        raise InvalidInput(
            f"{location}: what is to be written isn't what was planned any more",
            hint="something has been added to the source meanwhile: run the export again",
        )
    if not export.tickets:
        export.unchanged = await export.in_thread(is_written, session, plan)
        if not export.unchanged:
            export.tickets = await export.in_thread(begin_archive, session, plan, resume=export.resume)
    if export.unchanged:
        get_run_logger().info("%s is this very archive: nothing to write", location)
    else:
        get_run_logger().info("%s: %s in %d parts", location, show_size(plan.size), plan.part_count)
    return not export.unchanged


def write_name(parameters: dict[str, Any]) -> str:
    """`write parts 1 to 40 → s3://backups/shop.tar`"""
    numbers: Sequence[int] = parameters["parts"]
    return f"write parts {numbers[0]} to {numbers[-1]} → {parameters['location']}"


@task(
    name="write tarball to S3",
    task_run_name=write_name,  # type: ignore[arg-type]  # Prefect takes it, but its Protocol asks for a class method
    **REPEATABLE,
)
async def write_tarball(location: str, volume: int, parts: list[int]) -> None:  # noqa: ARG001 - shown in the UI
    """Writes these parts of one volume, but for those that are in place. The same for an archive that is a file."""
    export = current(ExportRun)
    group = PartGroup(volume=volume, numbers=tuple(parts))

    def stored(part: Part) -> None:
        export.stored[(volume, part.number)] = part.size

    written = await export.in_thread(
        write_parts, await export.session(), export.archive_planned, group, export.tickets[volume], on_part=stored
    )
    export.written.append(written)


@task(name="complete tarball", task_run_name="complete {location}", **REPEATABLE)
async def complete_tarball(location: str) -> None:  # noqa: ARG001 - shown in the UI
    """Gives the archive its name, now that every part is in place, and links to it."""
    export = current(ExportRun)
    session, plan = await export.session(), export.archive_planned
    finish = partial(finish_archive, seconds=time.monotonic() - export.started)
    export.finished = await export.in_thread(finish, session, plan, export.tickets, export.written)
    for volume in plan.volumes:
        await acreate_link_artifact(
            link=link_to(volume.location, session.object_store),
            link_text=volume.location,
            key=artifact_key("archive", volume.location),
            description=f"{show_size(volume.tar.size)}, {counted(plan.images, 'image')}",
        )


@task(name="verify", task_run_name="verify {location}", **ONCE)
async def verify_tarball(location: str, *, deep: bool = False) -> None:
    """Reads the archive where it is: every blob has to be there, and with `deep` every byte is hashed.

    Raises IntegrityError when something is missing or wrong; the export keeps the whole list.
    """
    export = current(ExportRun)
    session, locations = await export.session(), export.archive_planned.locations
    verification = await export.in_thread(verify_written, session, locations, deep=deep)
    export.relocation.verification = verification
    if verification.problems:
        raise IntegrityError(
            f"{location}: {counted(len(verification.problems), 'problem')}, the first: {verification.problems[0]}",
            hint="remove it and write it again",
        )
    get_run_logger().info("verified %d images and %d blobs", verification.manifests, verification.blobs)


class PartsAccount(msgspec.Struct, frozen=True, kw_only=True):
    """What has become of a group of parts so far, and what that has cost."""

    stored: int = 0
    written: list[WriteReport] = []
    receipt: Receipt = Receipt()

    @classmethod
    def of(cls, export: ExportRun) -> dict[str, Any]:
        account = cls(stored=export.bytes_stored, written=export.written, receipt=export.receipt())
        body: dict[str, Any] = msgspec.to_builtins(account)
        return body


async def write_here(export: ExportRun, group: PartGroup) -> None:
    location = export.archive_planned.volumes[group.volume].location
    await write_tarball(location, group.volume, list(group.numbers))


async def write_on_fleet(
    export: ExportRun,
    location: str,
    groups: Sequence[PartGroup],
    fleet: Fleet,
    parameters: Callable[[PartGroup], Mapping[str, Any]],
) -> None:
    """Has every group written by the fleet, with `parameters` for the flow run of each, into the upload that the export
    has begun. A group whose run was lost is sent again, and only what is missing of it is written; one that the Prefect
    server makes no run for is written here. Raises InvalidInput where there is no such deployment, Incomplete when a
    group failed; what is stored stays.
    """
    await find_deployment(fleet.deployment)

    def noted(run: UUID, account: Heartbeat) -> None:
        group = msgspec.convert(account.body, PartsAccount)
        export.elsewhere[str(run)] = group.receipt
        export.stored_elsewhere[str(run)] = group.stored

    jobs = [
        Job(name=f"{location}, group {number} of {len(groups)}", parameters=parameters(group))
        for number, group in enumerate(groups, 1)
    ]
    ends = await run_on_fleet(jobs, fleet, on_account=noted)
    for group, end in zip(groups, ends, strict=True):
        if end.end is None:
            await write_here(export, group)
    failures = [
        StoreError(end.message, side="destination", store=location, subject=job.name, retryable=True)
        for job, end in zip(jobs, ends, strict=True)
        if end.end not in (StateType.COMPLETED, None)
    ]
    if failures:
        raise Incomplete(
            f"{len(failures)} of {len(groups)} groups of parts failed; the first: {failures[0].message}",
            failures,
            some_done=len(failures) < len(groups),
            hint="run it again: what is stored isn't sent again",
        )
    for end in ends:
        export.written.extend(msgspec.convert(end.account.body, PartsAccount).written)
