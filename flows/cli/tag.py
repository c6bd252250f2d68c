"""`transship tag list` and `transship tag resolve`"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from flows.cli import debug
from flows.cli.access import RegistryFlags, registry_flags
from flows.cli.verb import Invocation, Tree, Verb, boolean, everywhere
from oci.bundle.tagnames import is_internal
from oci.errors import InvalidInput, NotFound
from oci.reference import parse_any
from oci.relocation.session import DEFAULT_CONCURRENCY, Session
from oci.store import Source


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
        raise InvalidInput("Use one of the commands: list, resolve")


@click.command(name="list", cls=Verb)
@click.option("-i", "--image", default="", help="Repository: REGISTRY/REPOSITORY or oci:PATH.")
@boolean("--digests", help="Show the digest of each tag, which takes a request each.")
@boolean("--imgpkg-internal-tags", help="Show the tags that tools make for themselves, too.")
@registry_flags()
@everywhere
@click.pass_obj
def list_tags(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """List the tags of a repository, sorted by name."""
    with _opened(invocation, registry) as session:
        source = session.source(parse_any(_given(flags)).repository)
        shown = sorted(name for name in source.tags() if flags["imgpkg_internal_tags"] or not is_internal(name))
        if flags["digests"]:
            with ThreadPoolExecutor(session.concurrency) as threads:
                digests = list(threads.map(lambda name: _digest(source, name), shown))
            rows = [[name, digest] for name, digest in zip(shown, digests, strict=True)]
            invocation.output.table("Tags", ["Name", "Digest"], rows)
        else:
            invocation.output.table("Tags", ["Name"], [[name] for name in shown])
    invocation.output.finish()


@click.command(name="resolve", cls=Verb)
@click.option("-i", "--image", default="", help="Reference: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@registry_flags()
@everywhere
@click.pass_obj
def resolve(invocation: Invocation, /, registry: RegistryFlags, **flags: Any) -> None:
    """Print the reference with the digest that the tag stands for."""
    reference = parse_any(_given(flags))
    with _opened(invocation, registry) as session:
        found = session.source(reference.repository).head_manifest(reference.identifier)
        if found is None:
            raise NotFound(
                "there is no such manifest",
                store=str(reference.repository),
                subject=str(reference),
                operation="resolving",
                status=404,
                hint="check the name and the tag, and that this identity may read it",
            )
        invocation.output.block(str(reference.at(found.digest)))
    invocation.output.finish()


def _given(flags: dict[str, Any]) -> str:
    if not flags["image"]:
        raise InvalidInput("Expected --image (-i)", hint="name the repository: -i REGISTRY/REPOSITORY")
    return str(flags["image"])


def _digest(source: Source, name: str) -> str:
    """Empty for a tag that went away since it was listed."""
    found = source.head_manifest(name)
    return found.digest if found else ""


def _opened(invocation: Invocation, registry: RegistryFlags) -> Session:
    if invocation.output.debug:
        debug.show_requests()
    access = registry.access("", invocation.output, concurrency=DEFAULT_CONCURRENCY)
    return Session(source=access, destination=access, cancel=invocation.cancel)
