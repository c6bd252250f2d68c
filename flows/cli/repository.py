"""The commands on single repositories: `transship tag` lists tags, resolves one, takes one away; `auth check` tries the
logins that a run will use, before the run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import click

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import concurrency_flag, flags_of, open_session, registry_flags
from flows.cli.output import keyified
from oci.bundle.tagnames import TagsReport, resolve_tag
from oci.bundle.tagnames import list_tags as tags_of
from oci.errors import Incomplete, InvalidInput, StoreError
from oci.mirror.policy import TagRule
from oci.output import to_dict
from oci.reference import LAYOUT_PREFIX, Repository, parse_any
from oci.relocation.session import Session
from oci.units import counted

_FILES = (".yaml", ".yml")
_LOGINS = ("Repository", "Right", "Login", "Result")


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
        from oci.prune.execute import WITH_MANIFEST, plan_untag, untag  # noqa: PLC0415 - the other commands need no prune

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


@verb("check", "mirrors.yaml", "registry.example/shop/web", "registry.corp.example/mirror/web --push --json")
@click.argument("repositories", nargs=-1, metavar="[REPOSITORY|FILE]...")
@click.option("--push", is_flag=True, help="Try the right to push to the repositories that are named here, too.")
@registry_flags(sides=True)
def check_logins(invocation: Invocation, /, **flags: Any) -> None:
    """Try the logins of repositories, or of all repositories that the mirrors of a FILE (.yaml) read and write.

    Reading is tried by asking for the tags; pushing by starting an upload, which is cancelled and leaves nothing.
    A login that is refused is named with where it comes from. Exit codes: 0 all work, 3 some do not, 1 none does.
    """
    invocation.output.check_columns(_LOGINS)
    files = [text for text in flags["repositories"] if text.endswith(_FILES)]
    names = [Repository.parse(text) for text in flags["repositories"] if text not in files]
    if len(files) > 1 or not (files or names):
        raise click.UsageError("Expected repositories, or one file of mirrors")
    rights = ("pull", "push") if flags["push"] else ("pull",)
    rights_of = dict.fromkeys((name, right) for name in names for right in rights)
    opened: AbstractContextManager[Session]
    if not files:
        opened = open_session(invocation)
    else:
        from flows.cli.mirror.file import Mirrors  # noqa: PLC0415 - for a file of mirrors only

        mirrors = Mirrors.asked_for(invocation, {"path": files[0], "names": (), "only": ""})
        for mirror in mirrors.chosen:
            stores = [(mirror.source.store, "pull"), *((place.store, "push") for place in mirror.destinations)]
            rights_of |= {(store, right): None for store, right in stores if isinstance(store, Repository)}
        opened = mirrors.session()
    with opened as session:
        tried = [_try_login(session, name, right) for name, right in rights_of]
    failures = [error for _, error in tried if error is not None]
    invocation.output.table("Logins", _LOGINS, [row for row, _ in tried])
    keys = ("repository", "right", "login", "result")
    invocation.output.result(
        logins=[dict(zip(keys, row, strict=True)) | {"works": error is None} for row, error in tried]
    )
    if failures:
        raise Incomplete(
            f"{len(failures)} of {counted(len(tried), 'login')} {'does' if len(tried) == 1 else 'do'} not work",
            failures,
            some_done=len(failures) < len(tried),
            hint="the table says where each login comes from",
        )


def _try_login(session: Session, name: Repository, right: str) -> tuple[list[str], StoreError | None]:
    store = session.repository("destination" if right == "push" else "source", name)
    error = None
    try:
        result = "works" if store.try_login(push=right == "push") else "works; there is no such repository yet"
    except StoreError as refusal:
        error, result = refusal, refusal.message
    return [str(name), right, store.login, result], error
