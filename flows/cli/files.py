"""`transship push` and `transship pull`."""

from __future__ import annotations

import os
from typing import Any

import click

from flows.cli.click_ext import Invocation, boolean, verb, words
from flows.cli.flags import flags_of, offline, open_session, output_file, pairs_of, registry_flags, store_flags
from flows.cli.output import IMGPKG, program_name
from flows.cli.progress import LayerProgress, progress_flag, shown
from oci.archive.source import ArchiveSource
from oci.bundle.lockfile import write_lock
from oci.bundle.pull import OpenSource, PullReport, PullRequest, look_up, pull
from oci.bundle.push import PushReport, PushRequest, entries_of, push
from oci.errors import InvalidInput
from oci.export.export import push_to_archive
from oci.files.decompress import UnpackLimits
from oci.files.folder import NEVER_REPLACED, check_folder, output_folder
from oci.files.pack import DEFAULT_EXCLUSIONS
from oci.reference import ArchiveName, LayoutFolder, named_archive
from oci.relocation.archive_source import named_in_archive, sealed
from oci.units import counted, show_cost, show_size


@verb(
    "push",
    "-b registry.example/shop/bundle:1.4.0 -f config/",
    "-i registry.example/shop/settings:1.0 -f settings.yml",
    "-b registry.example/shop/bundle:1.4.0 -f config/ --lock-output bundle.lock.yml",
)
@click.option("-b", "--bundle", default="", help="Push as a bundle to REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("-i", "--image", default="", help="Push as a plain image.")
@words("-f", "--file", "files", help="File or folder (repeatable).")
@words("--to-tag", "tags", help="Another tag of the result (repeatable).")
@words("--file-exclusion", help="Path inside the image to leave out (repeatable); replaces the default '.git'.")
@words("--file-exclude-defaults", help="The same, by its old name.", hidden=True)
@boolean("--preserve-permissions", help="Keep the permissions of group and others.")
@words("-l", "--labels", help="KEY=VALUE labels of the image's config (repeatable).")
@output_file("--to-tar", "Write an archive, FILE or s3://BUCKET/KEY, instead of pushing to a registry.")
@output_file("--lock-output", "Write a BundleLock of what was pushed.")
@boolean("--oci-media-types", help="OCI media types; imgpkg can pull such a bundle but not copy it.")
@progress_flag
@store_flags
@registry_flags()
def push_files(invocation: Invocation, /, **flags: Any) -> None:
    """Push files as a bundle or as a plain image. The same files give the same digest everywhere."""
    if (archive := named_archive(flags["bundle"] or flags["image"])) is not None:
        raise InvalidInput(
            "an archive is written with --to-tar", hint=f"name the image with -b or -i, and --to-tar {archive[0]}"
        )
    request = PushRequest(
        bundle=flags["bundle"],
        image=flags["image"],
        tags=flags["tags"],
        files=flags["files"],
        exclusions=(*flags["file_exclusion"], *flags["file_exclude_defaults"]) or DEFAULT_EXCLUSIONS,
        preserve_permissions=flags["preserve_permissions"],
        labels=pairs_of(flags["labels"]),
        oci_types=flags["oci_media_types"],
        may_be_empty=program_name() == IMGPKG,
    )
    if flags["lock_output"] and not request.bundle:
        raise InvalidInput("Lock output is not compatible with image, use bundle for lock output")
    if flags["lock_output"] and isinstance(request.destination.repository, LayoutFolder):
        raise InvalidInput("A lock names registries only: --lock-output can't be used with an image-layout folder")
    if flags["tags"] and flags["to_tar"]:
        raise InvalidInput("An image in an archive has one tag: --to-tag can't be used with --to-tar")
    if flags["lock_output"] and flags["to_tar"]:
        raise InvalidInput("A lock names registries only: --lock-output can't be used with --to-tar")
    invocation.resume_hint = "no name was moved; run the same again"
    output, place = invocation.output, request.destination
    entries = entries_of(request)
    for entry in entries:
        output.line(f"{'dir' if entry.is_folder else 'file'}: {entry.name}")
    if flags["to_tar"]:
        with offline(invocation) as session:
            pushed, report = push_to_archive(session, request, entries, flags["to_tar"])
            receipt = session.meter.receipt()
            output.result(**PushReport.of(pushed, receipt).to_dict())
        output.line(f"Pushed '{pushed.reference}'")
        output.summary(f"Pushed '{pushed.reference}' into {report.locations[0]}: {show_size(report.size)}")
        return
    with open_session(invocation, "destination") as session:
        progress = LayerProgress(session.meter, "packing", lambda receipt: receipt.bytes_written)

        def packed(size: int) -> None:
            progress.name = "pushing"
            progress.expect(size)

        with shown(progress, invocation, flags["progress_kind"]):
            destination = session.destination(place.repository)
            pushed = push(destination, request, entries, cancel=invocation.cancel, on_packed=packed)
        receipt = session.meter.receipt()
    if flags["lock_output"]:
        write_lock(flags["lock_output"], pushed.lock)
    output.result(**PushReport.of(pushed, receipt).to_dict())
    output.line(f"Pushed '{pushed.reference}'", end="")
    if not output.tty and not output.json:
        files = "1 file or folder" if len(entries) == 1 else f"{len(entries)} files and folders"
        spent = show_cost(receipt.total_requests, receipt.seconds)
        output.summary(f"Pushed '{pushed.reference}': {files}, {show_size(receipt.bytes_written)} sent, {spent}")


@verb(
    "pull",
    "-b registry.example/shop/bundle:1.4.0 -o bundle/",
    "-i registry.example/shop/settings:1.0 -o settings/",
    "--lock bundle.lock.yml -o bundle/ --recursive",
)
@click.option("-b", "--bundle", default="", help="Bundle: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("-i", "--image", default="", help="Plain image.")
@click.option("--lock", default="", help="BundleLock file.")
@click.option("--tar", multiple=True, help="Archive to pull from (repeat it for volumes); -b or -i says which image.")
@click.option(
    "-o",
    "--output",
    "folder",
    default=None,
    metavar="FOLDER",
    help="Folder for the files. It replaces what was pulled there before.",
)
@boolean("-r", "--recursive", help="Pull nested bundles, too.")
@boolean("--image-is-bundle-check", default=True, help="With -i, refuse a bundle.")
@boolean("--replace", help="Delete the output folder even when it wasn't made by a pull.")
@flags_of(UnpackLimits, "limits")
@progress_flag
@store_flags
@registry_flags()
def pull_files(invocation: Invocation, /, **flags: Any) -> None:
    """Pull the files of a bundle or an image into a folder."""
    request = None if flags["tar"] else _request(flags)
    path = flags["folder"]
    if path is None:
        raise InvalidInput('required flag(s) "output" not set', hint="say where to: -o FOLDER")
    if not path:
        raise InvalidInput("expected --output to be non-empty")
    if path in NEVER_REPLACED:
        check_folder(path, replace=flags["replace"])
    invocation.resume_hint = "the folder is as it was; run the same again"
    output = invocation.output
    with open_session(invocation, "source") as session:
        open_source: OpenSource = session.source
        if request is None:
            archive = session.archive(ArchiveName.of(*flags["tar"]))
            open_source, request = sealed(archive), _in_archive(archive, flags)
        progress = LayerProgress(session.meter, "pulling", lambda receipt: receipt.bytes_read)
        # As imgpkg: what the reference names is looked at before what is at the output.
        resolved = look_up(open_source, request)
        check_folder(path, replace=flags["replace"])
        with (
            shown(progress, invocation, flags["progress_kind"]),
            output_folder(path, replace=flags["replace"]) as folder,
        ):
            pulled = pull(
                open_source,
                request,
                folder,
                session.workers,
                line=output.line,
                expect=progress.expect,
                cancel=invocation.cancel,
                resolved=resolved,
            )
        receipt = session.meter.receipt()
    output.result(**PullReport.of(pulled, path, receipt).to_dict())
    if not output.tty and not output.json:
        lock = ", lock updated" if pulled.updated else ", lock kept as it is" if pulled.lock_path else ""
        nested = f", {counted(len(pulled.nested), 'nested bundle')}" if pulled.nested else ""
        read = f"{show_size(receipt.bytes_read)} read, {show_cost(receipt.total_requests, receipt.seconds)}"
        output.summary(f"Pulled '{pulled.image}' into {os.path.normpath(path)}{nested}{lock}: {read}")


def _request(flags: dict[str, Any], **source: str) -> PullRequest:
    return PullRequest(
        **{name: flags[name] for name in ("bundle", "image", "lock")} | source,
        recursive=flags["recursive"],
        image_is_bundle_check=flags["image_is_bundle_check"],
        limits=flags["limits"],
    )


def _in_archive(archive: ArchiveSource, flags: dict[str, Any]) -> PullRequest:
    """What -b or -i names in the archive, or what that was made for."""
    name = flags["bundle"] or flags["image"]
    if flags["lock"] or (flags["bundle"] and flags["image"]):
        raise InvalidInput("Expected only one of image and bundle, and no lock, with --tar")
    reference, is_bundle = named_in_archive(archive, name)
    as_bundle = bool(flags["bundle"]) if name else is_bundle
    return _request(flags, **{"bundle": "", "image": "", "bundle" if as_bundle else "image": str(reference)})
