"""`transship describe`."""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags, store_flags
from flows.cli.click_ext import Invocation, Verb, boolean, everywhere
from oci.archive.s3_options import S3Options
from oci.bundle.describe import OpenSource, as_text, as_yaml, describe
from oci.bundle.results import DescribeReport
from oci.errors import InvalidInput
from oci.output import to_dict
from oci.reference import ArchiveName, parse_any
from oci.relocation.archive_source import named_in_archive, sealed


class _OutputType(click.Choice):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.2 on
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        del param
        if value not in self.choices:
            raise click.UsageError(
                f"--output-type can only have the following values: [{', '.join(self.choices)}]", ctx
            )
        return value


@click.command(
    name="describe",
    cls=Verb,
    examples=(
        "-b registry.example/shop/bundle:1.4.0",
        "-b registry.example/shop/bundle:1.4.0 --output-type yaml",
        "--tar bundle.tar --layers",
    ),
)
@click.option("-b", "--bundle", default="", help="REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option("--tar", multiple=True, help="Archive to look into (repeat it for volumes); -b says which bundle.")
@concurrency_flag("Requests at a time")
@click.option("-o", "--output-type", type=_OutputType(["text", "yaml"]), default="text", show_default=True)
@boolean("--layers", default=True, help="Show the layers of each image.")
@boolean("--cosign-artifacts", default=True, help="Show cosign's signatures.")
@store_flags
@registry_flags()
@everywhere
@click.pass_obj
def describe_bundle(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> None:
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
        bundle = describe(
            open_source,
            reference,
            session.workers,
            layers=flags["layers"],
            signatures=flags["cosign_artifacts"],
        )
    if flags["output_type"] == "yaml":
        head, _, document = as_yaml(bundle).partition("\n")
        blocks = [f"{head}\n", document]
    else:
        blocks = as_text(bundle).splitlines(keepends=True)
    invocation.output.result(**to_dict(DescribeReport.of(bundle)))
    # As many blocks as in imgpkg's JSON.
    for block in blocks:
        invocation.output.block(block)
