"""`transship archive`: looking at archives, and at what one would be."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.export import MEMBERS, PARTS, show_archive_plan
from flows.cli.source import check_source, request_of, source_flags
from flows.cli.tarball import object_store_flags, offline, tarball_flags
from flows.cli.verb import Invocation, Tree, Verb, boolean, everywhere
from oci.archive.inventory import blobs_of, compare, images_of, verify_archive
from oci.archive.open import in_object_store
from oci.archive.s3_options import S3Settings
from oci.archive.source import Archive
from oci.errors import Incomplete, InvalidInput, StoreError
from oci.export.planner import ArchiveOptions, plan_archive
from oci.reference import ArchiveName
from oci.relocation.planner import make_plan
from oci.units import counted, show_size

_IMAGES = ("Image", "Tag", "Kind", "Blobs", "Bytes", "Digest")
_BLOBS = ("Digest", "Bytes")
_CHANGES = ("Change", "Image", "Before", "After")


@click.command(
    cls=Tree,
    members={
        "list": ("flows.cli.archive:list_images", "List the images of an archive"),
        "verify": ("flows.cli.archive:verify", "Prove that an archive is whole"),
        "diff": ("flows.cli.archive:diff", "Say what makes two archives differ"),
        "plan": ("flows.cli.archive:plan", "Say what an archive would hold, without making it"),
    },
    aliases={"ls": "list"},
    invoke_without_command=True,
)
@everywhere
@click.pass_context
def archive(context: click.Context) -> None:
    """Archives: files, or objects as s3://BUCKET/KEY."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        raise InvalidInput("Use one of available subcommands: list, verify, diff, plan")


@click.command(name="list", cls=Verb)
@click.argument("locations", metavar="ARCHIVE...", nargs=-1, required=True)
@boolean("--blobs", help="Its blobs instead; --delta-from takes such a list.")
@object_store_flags
@everywhere
@click.pass_obj
def list_images(invocation: Invocation, /, store: S3Settings, locations: tuple[str, ...], blobs: bool) -> None:
    """List the images of an archive, or of all the volumes that it was split into."""
    output = invocation.output
    output.check_columns(_BLOBS if blobs else _IMAGES)
    with offline(invocation, store) as session:
        found = session.archive(ArchiveName.of(*locations))
        if blobs:
            output.table("Blobs", _BLOBS, [[digest, str(size)] for digest, size in blobs_of(found).items()])
        else:
            rows = [
                [image.name, image.tag, image.kind, str(image.blobs), str(image.size), image.digest]
                for image in images_of(found)
            ]
            output.table("Images", _IMAGES, rows)
        output.summary(_what_it_is(found))
    output.finish()


@click.command(name="verify", cls=Verb)
@click.argument("locations", metavar="ARCHIVE...", nargs=-1, required=True)
@boolean("--deep", help="Read and hash every blob.")
@concurrency_flag("Blobs at a time")
@object_store_flags
@everywhere
@click.pass_obj
def verify(invocation: Invocation, /, store: S3Settings, locations: tuple[str, ...], **flags: Any) -> None:
    """Prove that everything the images need is in the archive, or with --deep that every blob has the right bytes."""
    output = invocation.output
    with offline(invocation, store, concurrency=flags["concurrency"]) as session:
        found = session.archive(ArchiveName.of(*locations))
        verdict = verify_archive(found, session.workers, deep=flags["deep"])
    if verdict.problems:
        raise Incomplete(
            f"{len(verdict.problems)} of {verdict.blobs} blobs aren't as they should be",
            [StoreError(problem) for problem in verdict.problems],
            hint=_again(locations),
        )
    lacking = f", {verdict.lacking} left out" if verdict.lacking else ""
    hashed = f", {show_size(verdict.bytes_hashed)} hashed" if flags["deep"] else ""
    output.summary(f"{counted(verdict.images, 'image')}, {counted(verdict.blobs, 'blob')}{hashed}{lacking}: all there")
    output.finish()


@click.command(name="diff", cls=Verb)
@click.argument("before")
@click.argument("after")
@object_store_flags
@everywhere
@click.pass_obj
def diff(invocation: Invocation, /, store: S3Settings, before: str, after: str) -> None:
    """Say which images are in one of two archives only, or have changed, and how many bytes that makes."""
    output = invocation.output
    output.check_columns(_CHANGES)
    with offline(invocation, store) as session:
        found = compare(session.archive(ArchiveName.of(before)), session.archive(ArchiveName.of(after)))
    output.table("Changes", _CHANGES, [[one.what, one.name, one.before, one.after] for one in found.images])
    added, removed = found.blobs_added, found.blobs_removed
    output.summary(
        f"{counted(len(found.images), 'change')}; "
        f"{counted(len(added), 'blob')} more ({show_size(sum(added.values()))}), "
        f"{len(removed)} fewer ({show_size(sum(removed.values()))})"
    )
    output.finish()


@click.command(name="plan", cls=Verb)
@source_flags
@click.option("--to-tar", default="", help="The archive that would be written: a file, or s3://BUCKET/KEY.")
@concurrency_flag("Requests at a time")
@tarball_flags
@object_store_flags
@registry_flags(sides=True)
@everywhere
@click.pass_obj
def plan(
    invocation: Invocation,
    /,
    registry: RegistryFlags,
    store: S3Settings,
    tarball: ArchiveOptions,
    **flags: Any,
) -> None:
    """Say what an archive would hold, byte for byte: its members, its parts, the requests. The same as
    `copy --to-tar ... --plan`."""
    check_source(flags)
    if not flags["to_tar"]:
        raise InvalidInput("Expected --to-tar", hint="name the archive: --to-tar FILE or s3://BUCKET/KEY")
    output = invocation.output
    output.check_columns(MEMBERS, PARTS)
    request = request_of(flags, str(ArchiveName.of(flags["to_tar"])))
    with registry.session(invocation, concurrency=flags["concurrency"], store=store) as session:
        show_archive_plan(output, plan_archive(session, request, make_plan(session, request), tarball))
    output.finish()


def _again(locations: tuple[str, ...]) -> str:
    """An object store isn't read before an object in it is taken for what it was, or copied from."""
    if any(map(in_object_store, locations)):
        return "make the archive again, without --resume, and don't name this one as --base"
    return "make the archive again: with --resume, what is right in this one is used"


def _what_it_is(found: Archive) -> str:
    contents = found.contents
    note = contents.transship_json
    bytes_held = sum(stretch.size for stretch in contents.blobs.values())
    volumes = f", {counted(note.volumes, 'volume')}" if note.volumes > 1 else ""
    left_out = sum(size for _, size in note.requires)
    delta = (
        f"; a delta to {note.base}: {counted(len(note.requires), 'blob')} ({show_size(left_out)}) left out"
        if note.base
        else ""
    )
    held = (
        f"{counted(len(contents.elements), 'image')}, {counted(len(contents.blobs), 'blob')}, {show_size(bytes_held)}"
    )
    return f"{contents.format} archive{volumes}: {held}{delta}"
