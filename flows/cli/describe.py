"""`transship describe`"""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.verb import Invocation, Verb, boolean, everywhere
from oci.bundle.describe import as_text, as_yaml, describe
from oci.errors import InvalidInput
from oci.reference import parse_any


@click.command(name="describe", cls=Verb)
@click.option("-b", "--bundle", default="", help="REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@concurrency_flag("Requests at a time")
@click.option("-o", "--output-type", type=click.Choice(["text", "yaml"]), default="text", show_default=True)
@boolean("--layers", default=True, help="Show the layers of each image.")
@boolean("--cosign-artifacts", default=True, help="Show cosign's signatures.")
@registry_flags()
@everywhere
@click.pass_obj
def describe_bundle(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Show what a bundle holds: images, nested bundles, signatures, and where each of them is."""
    if not flags["bundle"]:
        raise InvalidInput("Expected --bundle (-b)")
    with registry.session(invocation, side="", concurrency=flags["concurrency"]) as session:
        found = describe(
            session.source,
            parse_any(flags["bundle"]),
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
