"""`transship tag list`: the tags of a repository, or those that a rule of a mirror takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flows.cli.access import RegistryFlags, concurrency_flag, registry_flags
from flows.cli.click_ext import Invocation, Verb, boolean, everywhere
from flows.cli.flags import flags_of
from flows.cli.look import given
from flows.cli.output import keyified
from oci.bundle.results import TagsReport
from oci.bundle.tagnames import list_tags as tags_of
from oci.mirror.policy import TagRule
from oci.output import to_dict
from oci.reference import parse_any


@click.command(
    name="list",
    cls=Verb,
    examples=(
        "-i registry.example/shop/web --digests",
        "-i registry.example/shop/web --semver ^1.4 --latest 3",
        "-i oci:./mirror --json",
    ),
)
@click.option("-i", "--image", default="", help="Repository: REGISTRY/REPOSITORY or oci:PATH.")
@boolean("--digests", help="Show the digest of each tag, which takes a request each.")
@boolean("--imgpkg-internal-tags", help="Show the tags that tools make for themselves, too.")
@flags_of(TagRule, "rule", leave_out=("optional",))
@concurrency_flag("Requests at a time")
@registry_flags()
@everywhere
@click.pass_obj
def list_tags(invocation: Invocation, /, registry: RegistryFlags, rule: TagRule, **flags: Any) -> None:
    """List the tags of a repository, sorted by name; with the flags of a rule, those that a mirror with this rule would
    take."""
    output = invocation.output
    output.check_columns(("Name", "Digest"))
    digests = flags["digests"] or "digest" in map(keyified, output.columns)
    header = ("Name", "Digest") if digests else ("Name",)
    with registry.session(invocation, side="", concurrency=flags["concurrency"]) as session:
        source = session.source(parse_any(given(flags)).repository)

        def chosen(names: Sequence[str]) -> Sequence[str]:
            from oci.mirror.selection import SourceAges, select  # noqa: PLC0415 - a plain list needs no rules

            return select(names, [rule], SourceAges(session, source)).tags

        tags = tags_of(
            source,
            internal=flags["imgpkg_internal_tags"],
            digests=session.workers if digests else None,
            choose=None if rule == TagRule() else chosen,
        )
    output.result(**to_dict(TagsReport.of(str(source.name), tags)))
    rows = [[tag.name, tag.digest or ""] if digests else [tag.name] for tag in tags]
    output.table("Tags", header, rows, footer=f"{len(rows)} tags")  # imgpkg says `1 tags`, too
    output.finish()
