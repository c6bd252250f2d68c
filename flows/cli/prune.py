"""`transship prune`"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import (
    Age,
    access,
    check_overwrites,
    concurrency_flag,
    flags_of,
    open_session,
    output_file,
    registry_flags,
    show_requests,
)
from flows.cli.output import Output
from oci.bundle.tagnames import attached_to
from oci.errors import Incomplete, InvalidConfig, InvalidDocument, InvalidInput
from oci.output import read_named, write_json
from oci.prune.execute import execute
from oci.prune.plan import PrunePlan, PruneReport, UnwantedManifest, UnwantedTag
from oci.prune.planner import make_prune_plan, remember
from oci.prune.policy import Keep, KeepOptions
from oci.reference import StoreName, parse_store
from oci.relocation.session import Session
from oci.units import counted, show_cost, show_size

if TYPE_CHECKING:
    from oci.mirror.config import Mirror

F = TypeVar("F", bound=Callable[..., Any])

_MANIFESTS = ("Kind", "Digest", "Tags", "Unwanted since", "State")
_TAGS = ("Tag", "Digest", "Kept by", "Unwanted since", "State")
_NO_FILE = "-"
_PLAN_LIMIT = 256 << 20


@verb(
    "prune",
    "registry.corp.example/mirror/web --keep-latest 5 --keep-tag latest",
    "registry.corp.example/mirror/web --keep-lock images.lock.yml --approve",
    "oci:./mirror --keep-version '^1.4' --grace 7d",
)
@click.argument("repository", default="")
@flags_of(KeepOptions, "policy")
@click.option("-f", "--mirrors", default="", help="File of mirrors: what all mirrors to this repository take is kept.")
@boolean(
    "--keep-vanished",
    default=True,
    help="With -f, keep what the rules take by its name although the source has it no longer.",
)
@click.option(
    "--grace",
    type=Age(),
    default=timedelta(0),
    help="Delete only what has been unwanted for this long, such as 7d. The repository itself keeps since when.",
)
@boolean("--plan", help="Say what would be deleted, and delete nothing. The default.")
@output_file("--output", "Write the plan to a JSON file, to be reviewed and approved.")
@click.option(
    "--approve",
    is_flag=False,
    flag_value=_NO_FILE,
    default="",
    metavar="[PLAN]",
    help="Delete. With the file of a plan: exactly what it says, and only what is unwanted still.",
)
@output_file("--report", "Write what became of each manifest and tag to a JSON file.")
@concurrency_flag("Requests at a time")
@registry_flags(sides=True)
def prune(invocation: Invocation, /, policy: KeepOptions, **flags: Any) -> None:
    """Find, and with --approve delete, what REPOSITORY has beyond what is to be kept.

    REPOSITORY is REGISTRY/REPOSITORY, or oci:PATH for an image-layout folder. What a kept tag, lock or digest needs is
    kept with it: children of indexes, images of bundles, signatures, attestations and referrers.
    """
    output = invocation.output
    output.check_columns(_MANIFESTS, _TAGS)
    keep = Keep(**msgspec.structs.asdict(policy))
    inputs = (flags["mirrors"], flags["approve"], *policy.locks)
    check_overwrites({"--output": flags["output"], "--report": flags["report"]}, *inputs)
    reviewed = _reviewed(flags, keep)
    name = parse_store(reviewed.destination if reviewed else flags["repository"])
    with _session(invocation, name, flags) as (session, mirrored):
        keep = keep.and_also(mirrored) if mirrored else keep
        plan = reviewed
        if plan is None:
            plan = make_prune_plan(session, name, keep, grace=flags["grace"])
            if plan.grace:
                remember(session, name, plan)
        if flags["output"]:
            write_json(flags["output"], plan.to_dict())
        if not flags["approve"]:
            output.result(**plan.to_dict())
            _show(output, plan)
            return
        invocation.resume_hint = "what was deleted is gone, all else is as it was; run the same again to go on"
        report = execute(session, plan, keep=keep, on_deleted=lambda subject: output.line(f"prune | deleted {subject}"))
    output.report(flags["report"], report.to_dict())
    _tell(output, report)


@contextmanager
def _session(invocation: Invocation, name: StoreName, flags: dict[str, Any]) -> Iterator[tuple[Session, Keep | None]]:
    """With a file of mirrors, the repository is reached as this file says, and what its mirrors take comes along."""
    if not flags["mirrors"]:
        with open_session(invocation, "destination") as session:
            yield session, None
        return
    from oci.mirror.reader import read_config  # noqa: PLC0415 - pydantic, for those who have mirrors
    from oci.mirror.run import opened  # noqa: PLC0415
    from oci.mirror.selection import keep_for, mirrors_to  # noqa: PLC0415

    show_requests(invocation)
    config = read_config(flags["mirrors"])

    def open_mirror(mirror: Mirror) -> Session:
        return opened(config, [mirror], partial(access, invocation), invocation.cancel)

    first, *_ = mirrors_to(config, name)
    keep = keep_for(config, name, open_mirror, vanished=flags["keep_vanished"])
    with open_mirror(first) as session:
        yield session, keep


def _reviewed(flags: dict[str, Any], keep: Keep) -> PrunePlan | None:
    """The plan in the file that --approve names. What is to be kept may be added to it, never taken away."""
    path = flags["approve"]
    if flags["plan"] and path:
        raise InvalidInput("--plan and --approve can't both be given")
    if path in ("", _NO_FILE):
        if not flags["repository"]:
            raise InvalidInput("Expected what to prune", hint="name it first: transship prune REGISTRY/REPOSITORY ...")
        return None
    hint = "--approve takes what follows it for the file of a plan: put it at the end"
    data = read_named(path, "reading the plan", limit=_PLAN_LIMIT, hint=hint)
    try:
        plan = PrunePlan.from_json(data.decode("utf-8", "replace"))
    except InvalidDocument as error:
        raise InvalidConfig(f"{path}: {error.message}", hint=hint) from error
    if flags["repository"] and str(parse_store(flags["repository"])) != plan.destination:
        raise InvalidInput(f"the plan is for {plan.destination}, not for {flags['repository']}")
    if keep.nothing or flags["grace"]:
        raise InvalidInput("a reviewed plan has a policy and a grace period of its own", hint="make a new plan")
    return plan


def _show(output: Output, plan: PrunePlan) -> None:
    manifests = [
        [manifest.kind, manifest.digest, _names(manifest.tags), *_since(manifest)] for manifest in plan.manifests
    ]
    if manifests:
        output.table("Manifests", _MANIFESTS, manifests)
    tags = [[tag.tag, tag.digest, tag.because, *_since(tag)] for tag in plan.tags]
    if tags:
        output.table("Tags", _TAGS, tags)
    for warning in plan.warnings:
        output.warn(warning)
    for unknown in plan.unknown:
        output.warn(f"before you approve: {unknown}")
    kept_count = f"{counted(plan.manifests_kept, 'manifest')} kept"
    if not manifests and not tags:
        output.summary(f"{plan.destination}: nothing to delete, {kept_count}")
        return
    parts = [f"{counted(len(plan.due_manifests), 'manifest')} to delete"]
    if plan.due_tags:
        parts.append(f"{counted(len(plan.due_tags), 'tag')} to take from others")
    if plan.waiting:
        parts.append(f"{plan.waiting} within their grace period")
    parts.extend((kept_count, f"at most {show_size(plan.bytes_to_free)} to free"))
    end = "nothing to do yet" if plan.is_empty else "nothing was deleted: --approve does that"
    output.summary(f"{plan.destination}: {', '.join(parts)}; {end}")


def _names(tags: Sequence[str]) -> str:
    """The names that people gave; those with a digest in them are only counted."""
    named = [tag for tag in tags if not attached_to(tag)]
    attached = len(tags) - len(named)
    return ", ".join([*named, f"{attached} with a digest in the name"] if attached else named)


def _since(planned: UnwantedManifest | UnwantedTag) -> tuple[str, str]:
    return f"{planned.since:%Y-%m-%d %H:%M}", "to delete" if planned.due else "waiting"


def _tell(output: Output, report: PruneReport) -> None:
    for remaining in report.skipped:
        output.warn(f"left: {remaining.subject}: {remaining.reason}")
    for remaining in report.refused:
        output.warn(f"can't be taken away alone: {remaining.subject}: {remaining.reason}")
    counts = (
        (len(report.untagged), f"{counted(len(report.untagged), 'tag')} taken from others"),
        (report.gone, f"{report.gone} gone already"),
        (len(report.skipped), f"{len(report.skipped)} left, for something has changed"),
        (len(report.refused), f"{counted(len(report.refused), 'tag')} can't be taken away alone"),
        (report.waiting, f"{report.waiting} within their grace period"),
    )
    deleted = ", ".join(
        [f"{counted(len(report.deleted), 'manifest')} deleted", *(text for count, text in counts if count)]
    )
    if report.failed:
        raise Incomplete(
            f"{report.destination}: {deleted}, {len(report.failed)} failed",
            [remaining.as_error for remaining in report.failed],
            some_done=bool(report.deleted or report.untagged),
            hint="run the same again: what is gone is not asked for again",
        )
    receipt = report.receipt
    spent = f"{show_size(report.bytes_freed)} freed, {show_cost(receipt.total_requests, receipt.seconds)}"
    output.summary(f"{report.destination}: {deleted}, {spent}")
