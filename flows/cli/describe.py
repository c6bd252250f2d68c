"""`transship describe`"""

from __future__ import annotations

from typing import Any

import click

from flows.cli import debug
from flows.cli.access import RegistryFlags, registry_flags
from flows.cli.verb import Invocation, Verb, boolean, everywhere
from oci.bundle.describe import as_text, as_yaml, describe
from oci.errors import InvalidInput
from oci.reference import parse_any
from oci.relocation.session import DEFAULT_CONCURRENCY, Session


@click.command(name="describe", cls=Verb)
@click.option("-b", "--bundle", default="", help="REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 64),
    default=DEFAULT_CONCURRENCY,
    show_default=True,
    help="Requests at a time.",
)
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
    if invocation.output.debug:
        debug.show_requests()
    concurrency = flags["concurrency"]
    access = registry.access("", invocation.output, concurrency=concurrency)
    with Session(source=access, destination=access, concurrency=concurrency, cancel=invocation.cancel) as session:
        found = describe(
            session.source,
            parse_any(flags["bundle"]),
            session.workers,
            layers=flags["layers"],
            signatures=flags["cosign_artifacts"],
        )
    invocation.output.block(as_yaml(found) if flags["output_type"] == "yaml" else as_text(found))
    invocation.output.finish()
