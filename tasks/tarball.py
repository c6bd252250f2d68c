"""Writing a tarball: planned as a whole, written in groups of parts that are retried alone, named in the end."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from prefect import task
from prefect.artifacts import acreate_link_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from pydantic import BaseModel

from oci.archive.inventory import Verdict, verify_archive
from oci.errors import IntegrityError, InvalidInput
from oci.export.assembly import WriteReport
from oci.export.export import ArchiveReport, begin_archive, finish_archive, write_parts
from oci.export.options import ExportOptions
from oci.export.parts import Part
from oci.export.plan import ArchivePlan, Group
from oci.export.planner import plan_archive
from oci.export.resume import is_written
from oci.reference import S3_PREFIX, ArchiveName
from oci.relocation.session import Session
from oci.relocation.verify import Verification
from oci.units import counted, show_size
from tasks.relocation import Order, Relocation, current
from tasks.report import artifact_key
from tasks.retries import DELAYS, RETRIES, worth_retrying
from tasks.transfer import opened_transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOrder:
    """An archive as asked for: no secret, no connection."""

    order: Order
    options: ExportOptions
    resume: bool = True
    """Go on with what an earlier run of the same archive has stored."""
    seal: str = ""
    """Of the plan that another run has made, and of which this one writes a part."""
    tickets: tuple[str, ...] = ()
    """That run's, one for each volume."""


class Export(Relocation):
    """One archive being written. Nothing is pushed; the destination is where the archive is to be."""

    def __init__(self, asked: ExportOrder) -> None:
        super().__init__(asked.order)
        self.asked = asked
        self.tickets = asked.tickets
        self.archive: ArchivePlan | None = None
        self.unchanged = False
        """The very archive was there before."""
        self.stored: dict[tuple[int, int], int] = {}
        """Bytes of the parts that are in place, by volume and number."""
        self.stored_elsewhere: dict[str, int] = {}
        self.written: list[WriteReport] = []
        self.result: ArchiveReport | None = None
        self.started = time.monotonic()

    @property
    def archive_planned(self) -> ArchivePlan:
        """Raises InvalidInput before the tarball is planned."""
        if self.archive is None:
            raise InvalidInput("no archive is planned yet", hint="run plan_tarball first")
        return self.archive

    @property
    def bytes_stored(self) -> int:
        return sum(list(self.stored.values())) + sum(list(self.stored_elsewhere.values()))


class TarballPlan(BaseModel):
    """The plan of an archive in numbers; the plan itself stays in the process. Sizes in bytes."""

    size: int
    volumes: int
    parts: int
    images: int
    blobs: int
    copied: int
    """What comes out of the older archive without being fetched."""
    left_out: int
    unchanged: bool


class PartsWritten(BaseModel):
    """Sizes in bytes: `sent` went through the worker, `copied` didn't, `kept` was stored by an earlier run."""

    sent: int = 0
    copied: int = 0
    kept: int = 0
    parts: int = 0


@asynccontextmanager
async def exporting(asked: ExportOrder) -> AsyncIterator[Export]:
    """The export that the tasks called inside work on."""
    async with opened_transfer(Export(asked)) as export:
        yield export


def current_export() -> Export:
    """The export of this flow run. Raises InvalidInput outside `exporting`."""
    relocation = current()
    if not isinstance(relocation, Export):
        raise InvalidInput("no archive is being written here", hint="call the task inside `exporting`")
    return relocation


@task(
    name="plan tarball",
    task_run_name="plan tarball {location}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def plan_tarball(location: str) -> TarballPlan:
    """Knows every byte's place before one is moved, and begins the archive, or finds the upload to go on with. Writes
    nothing when the very archive is there."""
    export = current_export()
    session = await export.session()
    plan = await export.in_thread(plan_archive, session, export.request, export.planned, export.asked.options)
    export.archive = plan
    if export.asked.seal and export.asked.seal != plan.seal:
        raise InvalidInput(
            f"{location}: what is to be written isn't what was planned any more",
            hint="something has been added to the source meanwhile: run the export again",
        )
    if not export.tickets:
        export.unchanged = await export.in_thread(is_written, session, plan)
        if not export.unchanged:
            export.tickets = await export.in_thread(begin_archive, session, plan, resume=export.asked.resume)
    found = TarballPlan(
        size=plan.size,
        volumes=len(plan.volumes),
        parts=sum(len(volume.parts) for volume in plan.volumes),
        images=plan.images,
        blobs=len(plan.blobs),
        copied=plan.bytes_copied,
        left_out=sum(size for _, size in plan.left_out),
        unchanged=export.unchanged,
    )
    if export.unchanged:
        get_run_logger().info("%s is this very archive: nothing to write", location)
    else:
        get_run_logger().info("%s: %s in %d parts", location, show_size(found.size), found.parts)
    return found


def write_name(parameters: dict[str, Any]) -> str:
    """`write parts 1 to 40 → s3://backups/shop.tar`"""
    numbers: Sequence[int] = parameters["parts"]
    return f"write parts {numbers[0]} to {numbers[-1]} → {parameters['location']}"


@task(
    name="write tarball to S3",
    task_run_name=write_name,  # type: ignore[arg-type]  # Prefect takes it, but its Protocol asks for a class method
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    retry_jitter_factor=0.5,
    cache_policy=NO_CACHE,
)
async def write_tarball(location: str, volume: int, parts: list[int]) -> PartsWritten:  # noqa: ARG001 - shown in the UI
    """Writes these parts of one volume, but for those that are in place. The same for an archive that is a file."""
    export = current_export()
    group = Group(volume=volume, numbers=tuple(parts))

    def stored(part: Part) -> None:
        export.stored[(volume, part.number)] = part.size

    written = await export.in_thread(
        write_parts, await export.session(), export.archive_planned, group, export.tickets[volume], on_part=stored
    )
    export.written.append(written)
    return PartsWritten(**asdict(written))


@task(
    name="complete tarball",
    task_run_name="complete {location}",
    retries=RETRIES,
    retry_delay_seconds=DELAYS,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
)
async def complete_tarball(location: str) -> dict[str, Any]:  # noqa: ARG001 - shown in the UI
    """Gives the archive its name, now that every part is in place, and links to it."""
    export = current_export()
    session, plan = await export.session(), export.archive_planned
    finish = partial(finish_archive, seconds=time.monotonic() - export.started)
    result = await export.in_thread(finish, session, plan, export.tickets, export.written)
    export.result = result
    for volume in plan.volumes:
        await acreate_link_artifact(
            link=link_to(volume.location, session),
            link_text=volume.location,
            key=artifact_key("archive", volume.location),
            description=f"{show_size(volume.tar.size)}, {counted(plan.images, 'image')}",
        )
    return result.to_dict()


@task(name="verify", task_run_name="verify {location}", cache_policy=NO_CACHE)
async def verify_tarball(location: str, *, deep: bool = False) -> Verification:
    """Reads the archive where it is: every blob has to be there, and with `deep` every byte is hashed.

    Raises IntegrityError when something is missing or wrong; the export keeps the whole list.
    """
    export = current_export()
    session = await export.session()
    name = ArchiveName.of(*export.archive_planned.locations)

    def look() -> Verdict:
        return verify_archive(session.archive(name, "destination", anew=True), session.workers, deep=deep)

    found = await export.in_thread(look)
    verification = Verification(
        manifests=found.images, blobs=found.blobs, bytes_hashed=found.bytes_hashed, problems=found.problems
    )
    export.verification = verification
    if found.problems:
        raise IntegrityError(
            f"{location}: {counted(len(found.problems), 'problem')}, the first: {found.problems[0]}",
            hint="remove it and write it again",
        )
    get_run_logger().info("verified %d images and %d blobs", found.images, found.blobs)
    return verification


def link_to(location: str, session: Session) -> str:
    """For a browser; what it shows depends on what the reader may see there."""
    if not location.startswith(S3_PREFIX):
        return f"file://{quote(location)}"
    bucket, _, key = location.removeprefix(S3_PREFIX).partition("/")
    address = session.object_store(location).address
    return f"{address}/{bucket}/{quote(key)}" if address else f"https://{bucket}.s3.amazonaws.com/{quote(key)}"
