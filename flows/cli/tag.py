"""`transship tag`: lists tags, resolves one, takes one away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import concurrency_flag, flags_of, open_session, registry_flags
from flows.cli.output import keyified
from oci.bundle.tagnames import TagsReport, resolve_tag
from oci.bundle.tagnames import list_tags as tags_of
from oci.errors import InvalidInput
from oci.mirror.policy import TagRule
from oci.output import to_dict
from oci.reference import LAYOUT_PREFIX, parse_any


@verb(
    "list",
    "-i registry.example/shop/web --digests",
    "-i registry.example/shop/web --semver ^1.4 --latest 3",
    "-i oci:./mirror --json",
)
@click.option("-i", "--image", default="", help="Repository: REGISTRY/REPOSITORY or oci:PATH.")
@boolean("--digests", help="Show the digest of each tag, which takes a request each.")
@boolean("--imgpkg-internal-tags", help="Show the tags that tools make for themselves, too.")
@flags_of(TagRule, "rule", leave_out=("optional",))
@concurrency_flag("Requests at a time")
@registry_flags()
def list_tags(invocation: Invocation, /, rule: TagRule, **flags: Any) -> None:
    """List the tags of a repository, sorted by name; with the flags of a rule, those that a mirror with this rule would
    take."""
    output = invocation.output
    output.check_columns(("Name", "Digest"))
    digests = flags["digests"] or "digest" in map(keyified, output.columns)
    header = ("Name", "Digest") if digests else ("Name",)
    with open_session(invocation, "") as session:
        source = session.source(parse_any(image_flag(flags)).repository)

        def chosen(names: Sequence[str]) -> Sequence[str]:
            from oci.mirror.selection import SourceAges, select  # noqa: PLC0415 - a plain list needs no rules

            return select(names, [rule], SourceAges(session, source)).tags

        tags = tags_of(
            source,
            internal=flags["imgpkg_internal_tags"],
            digests=session.workers if digests else None,
            choose=None if rule == TagRule() else chosen,
        )
    output.result(**to_dict(TagsReport(repository=str(source.name), tags=tags)))
    rows = [[tag.name, tag.digest] if digests else [tag.name] for tag in tags]
    output.table("Tags", header, rows, footer=f"{len(rows)} tags")  # imgpkg says `1 tags`, too


@verb(
    "resolve", "-i registry.example/shop/web:1.25", "-i registry.example/shop/web:1.25 --json", "-i oci:./mirror:1.4.0"
)
@click.option("-i", "--image", default="", help="Reference: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@registry_flags()
def resolve(invocation: Invocation, /, **flags: Any) -> None:
    """Print the reference with the digest that the tag stands for."""
    reference = parse_any(image_flag(flags))
    with open_session(invocation, "") as session:
        resolved = resolve_tag(session.source(reference.repository), reference)
    invocation.output.result(reference=str(resolved), digest=resolved.identifier)
    invocation.output.block(str(resolved))


def image_flag(flags: dict[str, Any]) -> str:
    """The --image of a command. Raises InvalidInput where it is left out."""
    if not flags["image"]:
        raise InvalidInput("Expected --image (-i)", hint="name the repository: -i REGISTRY/REPOSITORY")
    return str(flags["image"])


@verb(
    "delete",
    "-i registry.corp.example/mirror/web:1.24",
    "-i registry.corp.example/mirror/web:1.24 --yes",
    "-i oci:./mirror:1.4.0 --yes --json",
)
@click.option("-i", "--image", default="", help="Reference: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG.")
@concurrency_flag("Requests at a time")
@registry_flags()
def delete(invocation: Invocation, /, **flags: Any) -> None:
    """Say which other tags show the same digest, and with --yes take the tag away.

    Where the registry can't take a tag away alone, the manifest goes with it; this is refused when other tags show it,
    or when something that has a name lists it.
    """
    output = invocation.output
    reference = parse_any(image_flag(flags))
    if ":" not in flags["image"].removeprefix(LAYOUT_PREFIX).rpartition("/")[2]:
        raise InvalidInput(
            f"{flags['image']} names no tag, and none is deleted by default",
            hint="name one: REGISTRY/REPOSITORY:TAG or oci:PATH:TAG",
        )
    with open_session(invocation, "destination") as session:
        from oci.prune.untag import WITH_MANIFEST, plan_untag, untag  # noqa: PLC0415 - the other commands need no prune

        untagged = untag(session, reference) if output.yes else plan_untag(session, reference)
    output.result(**to_dict(untagged))
    stay = f"{', '.join(untagged.others)} show the same and stay" if untagged.others else "no other tag shows it"
    if not output.yes:
        output.summary(f"{untagged}: {stay}; nothing was deleted: --yes does that")
    else:
        outcome = (
            "deleted with its manifest" if untagged.deleted == WITH_MANIFEST else "deleted; its manifest is there still"
        )
        output.summary(f"{untagged}: {outcome}; {stay}")
