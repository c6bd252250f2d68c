"""`transship pull`"""

from __future__ import annotations

import os
from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags
from flows.cli.progress import LayerProgress, progress_flag, shown
from flows.cli.tarball import object_store_flags
from flows.cli.verb import Invocation, Verb, boolean, everywhere
from oci.archive.s3_options import S3Settings
from oci.archive.source import Archive
from oci.bundle.pull import OpenSource, PullRequest, pull
from oci.errors import InvalidInput
from oci.files.output import check_output, output_folder
from oci.reference import ArchiveName
from oci.relocation.archive_source import named_in_archive, sealed
from oci.units import counted, show_size


@click.command(name="pull", cls=Verb)
@click.option("-b", "--bundle", default="", help="Bundle: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("-i", "--image", default="", help="Plain image.")
@click.option("--lock", default="", help="BundleLock file.")
@click.option("--tar", multiple=True, help="Archive to pull from (repeat it for volumes); -b or -i may say what.")
@click.option(
    "-o", "--output", "folder", default=None, help="Folder to put the files in; what was pulled there before goes."
)
@boolean("-r", "--recursive", help="Nested bundles, too.")
@boolean("--image-is-bundle-check", default=True, help="With -i, refuse a bundle.")
@boolean("--replace", help="Delete the output folder even when it wasn't made by a pull.")
@progress_flag
@object_store_flags
@registry_flags()
@everywhere
@click.pass_obj
def pull_files(invocation: Invocation, /, registry: RegistryFlags, store: S3Settings, **flags: Any) -> None:
    """Pull the files of a bundle or an image into a folder."""
    request = None if flags["tar"] else _request(flags)
    path = flags["folder"]
    if path is None:
        raise InvalidInput('required flag(s) "output" not set', hint="say where to: -o FOLDER")
    if not path:
        raise InvalidInput("expected --output to be non-empty")
    check_output(path, replace=flags["replace"])
    invocation.kept = "the folder is as it was; run the same again"
    output = invocation.output
    with registry.session(invocation, side="source", store=store) as session:
        open_source: OpenSource = session.source
        if request is None:
            archive = session.archive(ArchiveName.of(*flags["tar"]))
            open_source, request = sealed(archive), _in_archive(archive, flags)
        progress = LayerProgress(session.meter, "pulling", lambda receipt: receipt.bytes_read)
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
            )
        receipt = session.meter.receipt()
    if not output.tty and not output.json:
        lock = ", lock updated" if pulled.updated else ", lock kept as it is" if pulled.lock_path else ""
        nested = f", {counted(len(pulled.nested), 'nested bundle')}" if pulled.nested else ""
        requests = counted(receipt.total_requests, "request")
        read = f"{show_size(receipt.bytes_read)} read, {requests}, {receipt.seconds:.1f} s"
        output.summary(f"Pulled '{pulled.image}' into {os.path.normpath(path)}{nested}{lock}: {read}")
    output.finish()


def _request(flags: dict[str, Any], **source: str) -> PullRequest:
    return PullRequest(
        **{name: flags[name] for name in ("bundle", "image", "lock")} | source,
        recursive=flags["recursive"],
        image_is_bundle_check=flags["image_is_bundle_check"],
    )


def _in_archive(archive: Archive, flags: dict[str, Any]) -> PullRequest:
    """What -b or -i names in the archive, or what that was made for."""
    given = flags["bundle"] or flags["image"]
    if flags["lock"] or (flags["bundle"] and flags["image"]):
        raise InvalidInput("Expected only one of image and bundle, and no lock, with --tar")
    reference, is_bundle = named_in_archive(archive, given)
    as_bundle = bool(flags["bundle"]) if given else is_bundle
    return _request(flags, **{"bundle": "", "image": "", "bundle" if as_bundle else "image": str(reference)})
