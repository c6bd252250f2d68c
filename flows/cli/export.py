"""`transship copy --to-tar`: from a source to an archive."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from flows.cli.access import RegistryFlags
from flows.cli.metrics import told
from flows.cli.output import Output
from flows.cli.planned import announce, warn_of_layers
from flows.cli.progress import Row, shown
from flows.cli.verb import Invocation
from oci.archive.inventory import verify_archive
from oci.archive.open import in_object_store
from oci.archive.s3_options import S3Settings
from oci.errors import Incomplete, Refused, StoreError
from oci.export.export import ArchiveReport, write_archive, write_sums
from oci.export.parts import Part
from oci.export.plan import ArchivePlan, Volume
from oci.export.planner import ArchiveOptions, plan_archive
from oci.export.resume import plan_resumed
from oci.output import write_output
from oci.reference import ArchiveName
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.relocation.session import Session
from oci.units import counted, show_size

MEMBERS = ("Volume", "Offset", "Bytes", "Member")
PARTS = ("Volume", "Parts", "Bytes", "Copied")


@dataclass(slots=True)
class ArchiveProgress:
    """An archive being written: its parts, and the blobs on their way."""

    session: Session
    plan: ArchivePlan | None = None
    finished: int = 0
    done: int = 0
    _written: int = 0
    _read: int = 0

    def planned(self, plan: ArchivePlan) -> None:
        receipt = self.session.meter.receipt()
        self._read, self._written = receipt.bytes_read, receipt.bytes_written
        self.plan = plan

    def part(self, part: Part) -> None:
        self.finished += 1
        self.done += part.size

    def overall(self) -> Row:
        if self.plan is None:
            return Row("planning")
        receipt = self.session.meter.receipt()
        on_way = max(0, receipt.bytes_read - self._read - (receipt.bytes_written - self._written))
        parts = sum(len(volume.parts) for volume in self.plan.volumes)
        name = f"{min(self.finished, parts)} of {parts} parts"
        return Row(name, min(self.done + on_way, self.plan.size), self.plan.size)

    def parts(self) -> list[Row]:
        plan, moving = self.plan, dict(self.session.moving)
        if plan is None:
            return []
        sizes = plan.blob_by_digest
        return [Row(blob[:19], min(done, sizes[blob].size), sizes[blob].size) for blob, done in moving.items()]


@dataclass(slots=True)
class _Lines:
    """`done: file 'NAME' (TIME)` for each member that is complete, as imgpkg tells them."""

    output: Output
    volumes: Sequence[Volume]
    _started: float = field(default_factory=time.monotonic)
    _left: dict[str, int] = field(default_factory=dict)
    _volume: int = -1
    _parts: int = 0

    def part(self, part: Part) -> None:
        """Volumes come one after the other, their parts in any order."""
        if not self._parts:
            self._volume += 1
            self._parts = len(self.volumes[self._volume].parts)
            members = self.volumes[self._volume].tar.members
            self._left = {member.content.name: member.end - member.offset for member in members}
        self._parts -= 1
        for member in self.volumes[self._volume].tar.between(part.start, part.end):
            name = member.content.name
            self._left[name] -= min(part.end, member.end) - max(part.start, member.offset)
            if not self._left[name]:
                self.output.line(f"copy | done: file '{name}' ({time.monotonic() - self._started:.3f}s)")


def to_tar(
    invocation: Invocation,
    registry: RegistryFlags,
    store: S3Settings,
    request: RelocationRequest,
    *,
    options: ArchiveOptions,
    flags: dict[str, Any],
) -> None:
    location = _location(request)
    beside = "" if in_object_store(location) else f" beside it, as {os.path.basename(location)}.partial"
    invocation.kept = f"what is written stays{beside}; run the same with --resume to go on"
    output = invocation.output
    session = registry.session(invocation, concurrency=flags["concurrency"], store=store)
    progress = ArchiveProgress(session)
    images: dict[str, int] = {}
    telling = told(session, lambda: images, invocation, destination=location, path=flags["metrics_file"])
    with session, nullcontext() if flags["plan_only"] else telling:
        with shown(progress, invocation, flags["progress_kind"]):
            plan = make_plan(session, request)
            archive_plan = (plan_resumed if flags["resume"] else plan_archive)(session, request, plan, options)
            if flags["plan_only"]:
                show_archive_plan(output, archive_plan)
                return
            announce(output, plan)
            output.line("copy | writing layers...")
            _tell_of_reuse(output, session, archive_plan)
            lines = _Lines(output, archive_plan.volumes)
            progress.planned(archive_plan)

            def on_part(part: Part) -> None:
                progress.part(part)
                lines.part(part)

            report = write_archive(session, archive_plan, resume=flags["resume"], on_part=on_part)
            images["copied"] = report.images
        warn_of_layers(output, plan, included=request.include_non_distributable)
        _verify(session, report, flags["verify_mode"])
        sums = write_sums(session, report.locations, location) if flags["sha256sums"] else ()
        receipt = session.meter.receipt()
        report = replace(report, requests=receipt.total_requests, seconds=receipt.seconds)
    _write_report(flags["report"], report, sums)
    for part in report.locations if len(report.locations) > 1 else ():
        output.line(f"copy | volume: {part}")
    output.summary(_summary(archive_plan, report))


def show_archive_plan(output: Output, plan: ArchivePlan) -> None:
    """Members, bytes and parts, before anything is done."""
    rows = [
        [str(number), str(member.offset), str(member.content.size), member.content.name]
        for number, volume in enumerate(plan.volumes, 1)
        for member in volume.tar.members
    ]
    output.table("Members", MEMBERS, rows)
    parts = [
        [volume.location, str(len(volume.parts)), str(volume.tar.size), str(volume.bytes_copied)]
        for volume in plan.volumes
    ]
    output.table("Parts", PARTS, parts)
    left = f", {counted(len(plan.left_out), 'blob')} left out" if plan.left_out else ""
    cut = counted(sum(len(volume.parts) for volume in plan.volumes), "part")
    output.summary(
        f"{counted(plan.images, 'image')}, {counted(len(plan.blobs), 'blob')}{left}: {show_size(plan.size)} in "
        f"{cut}, {show_size(plan.size - plan.bytes_copied)} to write, "
        f"{show_size(plan.bytes_copied)} to copy, about {counted(plan.estimated_requests, 'request')}"
    )


def _location(request: RelocationRequest) -> str:
    name = request.destination
    return name.locations[0] if isinstance(name, ArchiveName) else ""


def _tell_of_reuse(output: Output, session: Session, plan: ArchivePlan) -> None:
    if plan.base:
        older = session.archive(ArchiveName.of(plan.base), "destination")
        reused = [blob for blob in plan.blobs if older.blob_size(blob.digest) == blob.size]
        where = "store" if in_object_store(plan.base) else "disk"
        output.line(f"copy | Going to reuse {len(reused)} layers from the tar already in {where}")


def _verify(session: Session, report: ArchiveReport, mode: str) -> None:
    if mode == "none":
        return
    name = ArchiveName.of(*report.locations)
    found = verify_archive(session.archive(name, "destination", anew=True), session.workers, deep=mode == "deep")
    if found.problems:
        raise Incomplete(
            f"{counted(len(found.problems), 'problem')} in {name}",
            [StoreError(problem, side="destination") for problem in found.problems],
            hint="write the archive again",
        )


def _write_report(path: str, report: ArchiveReport, sums: Sequence[str]) -> None:
    if path:
        body = {**report.to_dict(), "sha256": list(sums)}
        try:
            write_output(path, json.dumps(body, indent=1).encode())
        except OSError as error:
            raise Refused(f"{error.strerror}", subject=path, operation="writing the report") from error


def _summary(plan: ArchivePlan, report: ArchiveReport) -> str:
    volumes = f" and {counted(len(report.locations) - 1, 'more volume')}" if len(report.locations) > 1 else ""
    copied = f", {show_size(report.copied)} copied from {plan.base}" if report.copied else ""
    kept = f", {show_size(report.kept)} kept of an earlier run" if report.kept else ""
    left = f", {show_size(report.left_out)} left out" if report.left_out else ""
    held = f"{counted(report.images, 'image')}, {counted(report.blobs, 'blob')}"
    spent = f"{counted(report.requests, 'request')}, {report.seconds:.1f} s"
    return (
        f"{plan.source} -> {report.locations[0]}{volumes}: {held}, "
        f"{show_size(report.sent)} written{copied}{kept}{left}, {spent}"
    )
