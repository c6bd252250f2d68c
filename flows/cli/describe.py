"""`transship describe`"""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.tarball import object_store_flags
from flows.cli.verb import Invocation, Verb, boolean, everywhere
from oci.archive.s3_options import S3Settings
from oci.bundle.describe import OpenSource, as_text, as_yaml, describe
from oci.errors import InvalidInput
from oci.reference import ArchiveName, parse_any
from oci.relocation.archive_source import named_in_archive, sealed


@click.command(name="describe", cls=Verb)
@click.option("-b", "--bundle", default="", help="REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("--tar", multiple=True, help="Archive to look into (repeat it for volumes); -b says what, if need be.")
@concurrency_flag("Requests at a time")
@click.option("-o", "--output-type", type=click.Choice(["text", "yaml"]), default="text", show_default=True)
@boolean("--layers", default=True, help="Show the layers of each image.")
@boolean("--cosign-artifacts", default=True, help="Show cosign's signatures.")
@object_store_flags
@registry_flags()
@everywhere
@click.pass_obj
def describe_bundle(invocation: Invocation, /, registry: RegistryFlags, store: S3Settings, **flags: Any) -> None:
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""
    if not flags["bundle"] and not flags["tar"]:
        raise InvalidInput("Expected --bundle (-b)")
    with registry.session(invocation, side="", concurrency=flags["concurrency"], store=store) as session:
        open_source: OpenSource = session.source
        if flags["tar"]:
            archive = session.archive(ArchiveName.of(*flags["tar"]))
            open_source = sealed(archive)
            reference, _ = named_in_archive(archive, flags["bundle"])
        else:
            reference = parse_any(flags["bundle"])
        found = describe(
            open_source,
            reference,
            session.workers,
            layers=flags["layers"],
            signatures=flags["cosign_artifacts"],
        )
    if flags["output_type"] == "yaml":
        head, _, document = as_yaml(found).partition("\n")
        blocks = [f"{head}\n", document]
    else:
        blocks = as_text(found).splitlines(keepends=True)
    # As many blocks as in imgpkg's JSON.
    for block in blocks:
        invocation.output.block(block)
    invocation.output.finish()
