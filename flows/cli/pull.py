"""`transship pull`"""

from __future__ import annotations

import os
from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags
from flows.cli.progress import LayerProgress, progress_flag, shown
from flows.cli.verb import Invocation, Verb, boolean, everywhere
from oci.bundle.pull import PullRequest, pull
from oci.errors import InvalidInput
from oci.files.output import check_output, output_folder
from tasks.sizes import human


@click.command(name="pull", cls=Verb)
@click.option("-b", "--bundle", default="", help="Bundle: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("-i", "--image", default="", help="Plain image.")
@click.option("--lock", default="", help="BundleLock file.")
@click.option(
    "-o", "--output", "folder", default=None, help="Folder to put the files in; what was pulled there before goes."
)
@boolean("-r", "--recursive", help="Nested bundles, too.")
@boolean("--image-is-bundle-check", default=True, help="With -i, refuse a bundle.")
@boolean("--replace", help="Delete the output folder even when it wasn't made by a pull.")
@progress_flag
@registry_flags()
@everywhere
@click.pass_obj
def pull_files(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Pull the files of a bundle or an image into a folder."""
    request = PullRequest(
        bundle=flags["bundle"],
        image=flags["image"],
        lock=flags["lock"],
        recursive=flags["recursive"],
        image_is_bundle_check=flags["image_is_bundle_check"],
    )
    path = flags["folder"]
    if path is None:
        raise InvalidInput("required flag(s) 'output' not set", hint="say where to: -o FOLDER")
    if not path:
        raise InvalidInput("Expected --output to be none empty")
    check_output(path, replace=flags["replace"])
    invocation.kept = "the folder is as it was; run the same again"
    output = invocation.output
    with registry.session(invocation, side="source") as session:
        progress = LayerProgress(session.meter, "pulling", lambda receipt: receipt.bytes_read)
        with (
            shown(progress, invocation, flags["progress_kind"]),
            output_folder(path, replace=flags["replace"]) as folder,
        ):
            pulled = pull(
                session.source,
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
        nested = f", {len(pulled.nested)} nested bundles" if pulled.nested else ""
        read = f"{human(receipt.bytes_read)} read, {receipt.total_requests} requests, {receipt.seconds:.1f} s"
        output.summary(f"Pulled '{pulled.image}' into {os.path.normpath(path)}{nested}{lock}: {read}")
    output.finish()
