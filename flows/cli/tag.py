"""`transship tag list` and `transship tag resolve`"""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.output import keyified
from flows.cli.verb import Invocation, Tree, Verb, boolean, everywhere
from oci.bundle.tagnames import list_tags as tags_of
from oci.bundle.tagnames import resolve_tag
from oci.errors import InvalidInput
from oci.reference import parse_any


@click.command(
    cls=Tree,
    members={
        "list": ("flows.cli.tag:list_tags", "List the tags of a repository"),
        "resolve": ("flows.cli.tag:resolve", "Say which digest a tag stands for"),
    },
    aliases={"ls": "list"},
    invoke_without_command=True,
)
@everywhere
@click.pass_context
def tag(context: click.Context) -> None:
    """Tags of a repository."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
        raise InvalidInput("Use one of available subcommands: list, resolve")


@click.command(name="list", cls=Verb)
@click.option("-i", "--image", default="", help="Repository: REGISTRY/REPOSITORY or oci:PATH.")
@boolean("--digests", help="Show the digest of each tag, which takes a request each.")
@boolean("--imgpkg-internal-tags", help="Show the tags that tools make for themselves, too.")
@concurrency_flag("Requests at a time")
@registry_flags()
@everywhere
@click.pass_obj
def list_tags(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """List the tags of a repository, sorted by name."""
    output = invocation.output
    output.check_columns(("Name", "Digest"))
    digests = flags["digests"] or "digest" in map(keyified, output.columns)
    header = ("Name", "Digest") if digests else ("Name",)
    with registry.session(invocation, side="", concurrency=flags["concurrency"]) as session:
        tags = tags_of(
            session.source(parse_any(_given(flags)).repository),
            internal=flags["imgpkg_internal_tags"],
            digests=session.workers if digests else None,
        )
    rows = [[tag.name, tag.digest or ""] if digests else [tag.name] for tag in tags]
    output.table("Tags", header, rows, footer=f"{len(rows)} tags")  # imgpkg says `1 tags`, too
    output.finish()


@click.command(name="resolve", cls=Verb)
@click.option("-i", "--image", default="", help="Reference: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@registry_flags()
@everywhere
@click.pass_obj
def resolve(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Print the reference with the digest that the tag stands for."""
    reference = parse_any(_given(flags))
    with registry.session(invocation, side="") as session:
        found = resolve_tag(session.source(reference.repository), reference)
    invocation.output.block(str(found))
    invocation.output.finish()


def _given(flags: dict[str, Any]) -> str:
    if not flags["image"]:
        raise InvalidInput("Expected --image (-i)", hint="name the repository: -i REGISTRY/REPOSITORY")
    return str(flags["image"])
