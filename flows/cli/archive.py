"""`transship archive`, and copies into archives: `copy --to-tar`, and docker-archive:PATH[:NAME] as skopeo has it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click
import msgspec

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import (
    concurrency_flag,
    flags_of,
    offline,
    open_session,
    output_file,
    registry_flags,
    store_flags,
)
from flows.cli.output import Output
from flows.cli.progress import ArchiveProgress, LayerProgress, shown
from flows.cli.source import OF_REPOSITORIES, announce, metrics_exported, source_flags, warn_of_layers
from oci.archive.entry import DOCKER_ARCHIVE
from oci.archive.inventory import blobs_of, compare, images_of, verify_archive
from oci.archive.options import ExportOptions
from oci.archive.source import ArchiveSource
from oci.digest import Digest
from oci.errors import Incomplete, InvalidInput, StoreError
from oci.export.export import ArchiveReport, docker_images, prove_written, seal_archive, write_archive, write_docker
from oci.export.plan import ArchivePlan, Volume
from oci.export.planner import plan_archive, plan_resumed
from oci.export.tar_plan import Part
from oci.output import check_outputs, to_dict
from oci.reference import ArchiveName, in_object_store
from oci.relocation.driver import Verify
from oci.relocation.planner import make_plan
from oci.relocation.request import RelocationRequest
from oci.units import counted, show_cost, show_size

if TYPE_CHECKING:
    from oci.receipts.record import Recorder


_IMAGES = ("Image", "Tag", "Kind", "Blobs", "Bytes", "Digest")
_BLOBS = ("Digest", "Bytes")
_CHANGES = ("Change", "Image", "Before", "After")


@verb("list", "shop.tar", "shop.tar --blobs", "s3://exports/shop.tar --json")
@click.argument("locations", metavar="ARCHIVE...", nargs=-1, required=True)
@boolean("--blobs", help="List its blobs instead; --delta-from takes such a list.")
@store_flags
def list_images(invocation: Invocation, /, locations: tuple[str, ...], blobs: bool) -> None:
    """List the images of an archive, or of all the volumes that it was split into."""
    output = invocation.output
    output.check_columns(_BLOBS if blobs else _IMAGES)
    with offline(invocation) as session:
        archive = session.archive(ArchiveName.of(*locations))
        sizes, images = blobs_of(archive), images_of(archive)
        if blobs:
            output.table("Blobs", _BLOBS, list(sizes.items()))
        else:
            rows = [[image.name, image.tag, image.kind, image.blobs, image.size, image.digest] for image in images]
            output.table("Images", _IMAGES, rows)
        output.result(
            format=archive.contents.format,
            volumes=archive.contents.transship_json.volumes,
            images=[to_dict(image) for image in images],
            blobs=len(sizes),
            size=sum(sizes.values()),
            base=archive.contents.transship_json.base,
        )
        output.summary(_what_it_is(archive, sizes))


@verb("verify", "shop.tar", "shop.tar --deep", "shop.vol1.tar shop.vol2.tar")
@click.argument("locations", metavar="ARCHIVE...", nargs=-1, required=True)
@boolean("--deep", help="Read and hash every blob.")
@click.option("--key", default="", help="Public key that each file must be signed with: NAME.sigstore.json beside it.")
@concurrency_flag("Blobs at a time")
@store_flags
def verify(invocation: Invocation, /, locations: tuple[str, ...], **flags: Any) -> None:
    """Prove that everything the images need is in the archive, or with --deep that every blob has the right bytes."""
    output = invocation.output
    with offline(invocation) as session:
        name = ArchiveName.of(*locations)
        if flags["key"]:
            session.prove_archive(name, flags["key"])
        verdict = verify_archive(session.archive(name), session.workers, deep=flags["deep"])
        session.wait_for_proofs()
    output.result(**to_dict(verdict), signed_by=flags["key"])
    if verdict.problems:
        again = "make the archive again: with --resume, what is right in this one is used"
        if any(map(in_object_store, locations)):
            # An object store isn't read before an object in it is taken for what it was, or copied from.
            again = "make the archive again, without --resume, and don't name this one as --base"
        raise Incomplete(
            f"{len(verdict.problems)} of {verdict.blobs} blobs aren't as they should be",
            [StoreError(problem) for problem in verdict.problems],
            hint=again,
        )
    lacking = f", {verdict.lacking} left out" if verdict.lacking else ""
    hashed = f", {show_size(verdict.bytes_hashed)} hashed" if flags["deep"] else ""
    signed = f", signed with {flags['key']}" if flags["key"] else ""
    contents = f"{counted(verdict.images, 'image')}, {counted(verdict.blobs, 'blob')}{hashed}{lacking}"
    output.summary(f"{contents}: all there{signed}")


@verb("diff", "march.tar april.tar", "s3://exports/march.tar april.tar", "march.tar april.tar --json")
@click.argument("before")
@click.argument("after")
@store_flags
def diff(invocation: Invocation, /, before: str, after: str) -> None:
    """Say which images are in one of two archives only, or have changed, and how many bytes that makes."""
    output = invocation.output
    output.check_columns(_CHANGES)
    with offline(invocation) as session:
        changes = compare(session.archive(ArchiveName.of(before)), session.archive(ArchiveName.of(after)))
    output.table("Changes", _CHANGES, [msgspec.structs.astuple(change) for change in changes.images])
    added, removed = changes.blobs_added, changes.blobs_removed
    output.result(
        changes=[to_dict(change) for change in changes.images],
        blobs_added=len(added),
        bytes_added=sum(added.values()),
        blobs_removed=len(removed),
        bytes_removed=sum(removed.values()),
    )
    output.summary(
        f"{counted(len(changes.images), 'change')}; "
        f"{counted(len(added), 'blob')} more ({show_size(sum(added.values()))}), "
        f"{len(removed)} fewer ({show_size(sum(removed.values()))})"
    )


@verb(
    "plan",
    "-b registry.example/shop/bundle:1.4.0 --to-tar shop.tar",
    "--lock images.lock.yml --to-tar s3://exports/shop.tar --max-size 4GiB",
    "-b registry.example/shop/bundle:1.4.0 --to-tar april.tar --base march.tar",
    rare=(
        "--policy",
        "--require-signatures",
        "--require-signature",
        "--record",
        "--ignore-bundle-check",
        "--cosign-signatures",
        "--only",
    ),
)
@source_flags(leave_out=("tags", *OF_REPOSITORIES))
@output_file("--to-tar", "The archive that would be written: a file, or s3://BUCKET/KEY.")
@concurrency_flag("Requests at a time")
@flags_of(ExportOptions, "tarball")
@store_flags
@registry_flags(sides=True)
def plan(invocation: Invocation, /, tarball: ExportOptions, source: dict[str, Any], **flags: Any) -> None:
    """Say what an archive would hold, byte for byte: its members, its parts, the requests. The same as
    `copy --to-tar ... --plan`."""
    if not flags["to_tar"]:
        raise InvalidInput("Expected --to-tar", hint="name the archive: --to-tar FILE or s3://BUCKET/KEY")
    output = invocation.output
    output.check_columns(MEMBERS, PARTS)
    request = RelocationRequest(to=str(ArchiveName.of(flags["to_tar"])), **source)
    with open_session(invocation) as session:
        show_archive_plan(output, plan_archive(session, request, make_plan(session, request), tarball))


def _what_it_is(archive: ArchiveSource, blobs: dict[Digest, int]) -> str:
    contents = archive.contents
    note = contents.transship_json
    volumes = f", {counted(note.volumes, 'volume')}" if note.volumes > 1 else ""
    left_out = sum(blob.size for blob in note.requires)
    delta = (
        f"; a delta to {note.base}: {counted(len(note.requires), 'blob')} ({show_size(left_out)}) left out"
        if note.base
        else ""
    )
    images, size = counted(len(contents.entries), "image"), show_size(sum(blobs.values()))
    return f"{contents.format} archive{volumes}: {images}, {counted(len(blobs), 'blob')}, {size}{delta}"


MEMBERS = ("Volume", "Offset", "Bytes", "Member")
PARTS = ("Volume", "Parts", "Bytes", "Copied")


@dataclass(slots=True)
class _Lines:
    """`done: file 'NAME' (TIME)` for each member that is complete, as imgpkg tells them."""

    output: Output
    volumes: Sequence[Volume]
    _started: float = field(default_factory=time.monotonic)
    _unwritten: dict[str, int] = field(default_factory=dict)
    _volume: int = -1
    _parts: int = 0

    def part(self, part: Part) -> None:
        """Volumes come one after the other, their parts in any order."""
        if not self._parts:
            self._volume += 1
            self._parts = len(self.volumes[self._volume].parts)
            members = self.volumes[self._volume].tar.members
            self._unwritten = {member.content.name: member.end - member.offset for member in members}
        self._parts -= 1
        for member in self.volumes[self._volume].tar.between(part.start, part.end):
            name = member.content.name
            self._unwritten[name] -= min(part.end, member.end) - max(part.start, member.offset)
            if not self._unwritten[name]:
                self.output.line(f"copy | done: file '{name}' ({time.monotonic() - self._started:.3f}s)")


def to_tar(
    invocation: Invocation,
    request: RelocationRequest,
    *,
    options: ExportOptions,
    recorder: Recorder | None,
    flags: dict[str, Any],
) -> None:
    if recorder is not None and recorder.options.receipt:
        options = options.with_(record=True)
    location = request.destination.location
    if flags["plan_only"]:
        invocation.output.check_columns(MEMBERS, PARTS)
        if not in_object_store(location):
            check_outputs(location)  # a plan ends as the copy will
    beside = "" if in_object_store(location) else f" beside it, as {os.path.basename(location)}.partial"
    invocation.resume_hint = f"what is written stays{beside}; run the same with --resume to go on"
    output = invocation.output
    session = open_session(invocation)
    progress = ArchiveProgress(session)
    images: dict[str, int] = {}
    with session, metrics_exported(session, lambda: images, invocation, location, flags):
        with shown(progress, invocation, flags["progress_kind"]):
            plan = make_plan(session, request)
            archive_plan = (plan_resumed if flags["resume"] else plan_archive)(session, request, plan, options)
            if flags["plan_only"]:
                show_archive_plan(output, archive_plan)
                return
            announce(output, plan)
            output.line("copy | writing layers...")
            if base := archive_plan.base:
                older = session.archive(ArchiveName.of(base), "destination")
                reused = [blob for blob in archive_plan.blobs if older.blob_size(blob.digest) == blob.size]
                where = "store" if in_object_store(base) else "disk"
                output.line(f"copy | Going to reuse {len(reused)} layers from the tar already in {where}")
            lines = _Lines(output, archive_plan.volumes)
            progress.planned(archive_plan)

            def on_part(part: Part) -> None:
                progress.part(part)
                lines.part(part)

            report = write_archive(session, archive_plan, resume=flags["resume"], on_part=on_part)
            images["copied"] = report.images
        warn_of_layers(output, plan, included=request.include_non_distributable)
        for warning in archive_plan.warnings:
            output.warn(warning)
        sums = seal_archive(
            session,
            plan,
            report.locations,
            location,
            sha256sums=flags["sha256sums"],
            recorder=recorder,
            verification=prove_written(session, report.locations, Verify(flags["verify_mode"])),
        )
        receipt = session.meter.receipt()
        report = msgspec.structs.replace(report, requests=receipt.total_requests, seconds=receipt.seconds)
    signatures = recorder.signatures_beside(report.locations) if recorder is not None else []
    result = {**report.to_dict(), "sha256": list(sums.values()), "signatures": signatures}
    output.report(flags["report"], result)
    for part in report.locations if len(report.locations) > 1 else ():
        output.line(f"copy | volume: {part}")
    output.summary(_summary(archive_plan, report))


def show_archive_plan(output: Output, plan: ArchivePlan) -> None:
    """Members, bytes and parts, before anything is done."""
    output.result(
        locations=[volume.location for volume in plan.volumes],
        images=plan.images,
        blobs=plan.blob_count,
        left_out=len(plan.left_out),
        size=plan.size,
        bytes_copied=plan.bytes_copied,
        parts=plan.part_count,
        requests=plan.estimated_requests,
    )
    rows = [
        [number, member.offset, member.content.size, member.content.name]
        for number, volume in enumerate(plan.volumes, 1)
        for member in volume.tar.members
    ]
    output.table("Members", MEMBERS, rows)
    parts = [[volume.location, len(volume.parts), volume.tar.size, volume.bytes_copied] for volume in plan.volumes]
    output.table("Parts", PARTS, parts)
    left_out = f", {counted(len(plan.left_out), 'blob')} left out" if plan.left_out else ""
    cut = counted(plan.part_count, "part")
    output.summary(
        f"{counted(plan.images, 'image')}, {counted(plan.blob_count, 'blob')}{left_out}: {show_size(plan.size)} in "
        f"{cut}, {show_size(plan.size - plan.bytes_copied)} to write, "
        f"{show_size(plan.bytes_copied)} to copy, about {counted(plan.estimated_requests, 'request')}"
    )


def _summary(plan: ArchivePlan, report: ArchiveReport) -> str:
    volumes = f" and {counted(len(report.locations) - 1, 'more volume')}" if len(report.locations) > 1 else ""
    copied = f", {show_size(report.copied)} copied from {plan.base}" if report.copied else ""
    reused = f", {show_size(report.kept)} kept of an earlier run" if report.kept else ""
    unread = f" ({show_size(report.unread)} of the archive not read again)" if report.unread else ""
    left_out = f", {show_size(report.left_out)} left out" if report.left_out else ""
    content = f"{counted(report.images, 'image')}, {counted(report.blobs, 'blob')}"
    return (
        f"{plan.source} -> {report.locations[0]}{volumes}: {content}, "
        f"{show_size(report.sent)} written{copied}{reused}{unread}{left_out}, "
        f"{show_cost(report.requests, report.seconds)}"
    )


def to_docker(
    invocation: Invocation, request: RelocationRequest, *, name: str, recorder: Recorder | None, flags: dict[str, Any]
) -> None:
    """Writes the file that `request.to` names, and its signature and receipt. `name` is what its only image is called;
    empty for what its source or the tags that are asked for call each."""
    output, path = invocation.output, request.destination.location
    invocation.resume_hint = "nothing is written under this name; run the same again"
    useless = [flag for flag in ("resume", "plan_only", "monitor", "lock_output") if flags[flag]]
    useless += ["verify"] if flags["verify_mode"] != "none" else []
    if useless:
        named = ", ".join(f"--{flag.removesuffix('_only').replace('_', '-')}" for flag in useless)
        raise InvalidInput(f"{DOCKER_ARCHIVE}: can't be written with {named}", hint="leave it out, or use --to-tar")
    check_outputs(path)
    with open_session(invocation) as session:
        plan = make_plan(session, request)
        images = docker_images(session, plan, name)
        announce(output, plan)
        progress = LayerProgress(session.meter, "unpacking layers", lambda receipt: receipt.bytes_read)
        progress.expect(sum({layer.digest: layer.size for image in images for layer in image.manifest.layers}.values()))
        with shown(progress, invocation, flags["progress_kind"]):
            report = write_docker(session, plan, path, images)
        sums = seal_archive(session, plan, (path,), path, sha256sums=flags["sha256sums"], recorder=recorder)
    names = [name for image in images for name in image.names]
    result = {"location": path, "format": DOCKER_ARCHIVE, "images": report.images, "layers": report.blobs}
    result |= {"sha256": [*sums.values()], "signatures": recorder.signatures_beside([path]) if recorder else []}
    result |= {"names": names, "size": report.size, "seconds": report.seconds, "requests": report.requests}
    output.report(flags["report"], result)
    output.summary(
        f"{plan.source} -> {path}: {counted(report.images, 'image')}, {counted(report.blobs, 'layer')}, "
        f"{show_size(report.size)} written, {show_cost(report.requests, report.seconds)}"
    )
