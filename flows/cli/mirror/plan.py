"""`transship mirror plan`"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import click
from msgspec import to_builtins

from flows.cli.access import RegistryFlags, registry_flags, store_flags
from flows.cli.click_ext import Invocation, OutputFile, Verb, boolean, everywhere
from flows.cli.mirror.shared import Mirrors, audit_flag, mirror_flags, warn_of_absent
from oci.archive.s3_options import S3Options
from oci.errors import Incomplete, StoreError, TransshipError
from oci.mirror.comparison import Comparison, TooFewTags
from oci.mirror.execute import MirrorPlan, plan_mirror
from oci.mirror.selection import Verdict, explain
from oci.units import counted, show_size

_IMAGES = ("Mirror", "Image", "Destination", "Tags", "To move", "To mount", "Problem")
_REQUESTS = ("Mirror", "Registry", "Requests")
_WHY = ("Mirror", "Tag", "Taken", "Rule", "Reason")


@click.command(name="plan", cls=Verb, examples=("", "web -f mirrors.yaml", "-f mirrors.yaml --json"))
@mirror_flags
@audit_flag
@boolean("--why", help="Show for each tag of the source which rule takes it, or what keeps it out.")
@click.option("--output", type=OutputFile(), default="", help="Write the plan to a JSON file.")
@registry_flags(sides=True)
@store_flags
@everywhere
@click.pass_obj
def plan(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> None:
    """Say which images a run would copy, with bytes to move and to mount and the requests it would take."""
    invocation.output.check_columns(_IMAGES, _REQUESTS, *([_WHY] if flags["why"] else []))
    mirrors = Mirrors.asked_for(invocation, registry, store, flags)
    shared = mirrors.shared(audit=flags["audit"])
    plans: list[MirrorPlan] = []
    why: dict[str, list[Verdict]] = {}
    failures: list[TransshipError] = []
    for session, comparison in mirrors.compared(shared, failures):
        if comparison.uncompared:
            continue
        plans.append(plan_mirror(session, comparison))
        failures.extend(StoreError(item.error, subject=", ".join(item.names)) for item in plans[-1].items if item.error)
        _say(invocation, plans[-1])
        if flags["why"]:
            named = {tag.tag for _, tag in comparison.tags()}
            why[comparison.mirror] = _verdicts(mirrors, comparison.mirror, comparison, named)
    few = [failure for failure in failures if flags["why"] and isinstance(failure, TooFewTags)]
    why |= {failure.subject: _verdicts(mirrors, failure.subject, failure, ()) for failure in few}
    body = [
        planned.to_dict() | ({"why": to_builtins(why[planned.mirror])} if planned.mirror in why else {})
        for planned in plans
    ] + [{"mirror": failure.subject, "why": to_builtins(why[failure.subject])} for failure in few]
    invocation.output.report(flags["output"], {"mirrors": body})
    if flags["why"]:
        rows = [
            [name, verdict.tag, "yes" if verdict.taken else "no", str(verdict.rule or ""), verdict.reason]
            for name, verdicts in why.items()
            for verdict in verdicts
        ]
        invocation.output.table("Why", _WHY, rows)
    invocation.output.table("Images", _IMAGES, [row for planned in plans for row in _rows(planned)])
    requests = [
        [planned.mirror, registry_name, count] for planned in plans for registry_name, count in planned.requests.items()
    ]
    if requests:
        invocation.output.table("Requests", _REQUESTS, requests)
    if failures:
        raise Incomplete(
            f"{counted(len(failures), 'part')} of the mirrors (sources, destinations, images) couldn't be looked at",
            failures,
            some_done=any(planned.in_place or not all(item.error for item in planned.items) for planned in plans),
            hint="what could be planned is shown; plan again when the cause is gone",
        )


def _verdicts(mirrors: Mirrors, name: str, source: Comparison | TooFewTags, named: Collection[str]) -> list[Verdict]:
    """Of all tags of the source, or of those that are named where it wasn't listed."""
    mirror = mirrors.config.mirror(name.partition("/")[0])
    if mirror.source.bundle or mirror.source.lock:
        return []
    return explain(
        sorted(source.listed if source.listed is not None else named), mirror.tags, mirror.never, source.selection
    )


def _say(invocation: Invocation, planned: MirrorPlan) -> None:
    warn_of_absent(invocation.output, planned)
    for tag, reason in planned.held.items():
        invocation.output.line(f"{planned.mirror} | {tag} waits: {reason}")
    waiting = f", {counted(planned.waiting, 'image')} left to the next run" if planned.waiting else ""
    work = f"{counted(len(planned.items), 'image')} to copy, {counted(planned.in_place, 'tag')} in place{waiting}"
    invocation.output.summary(
        f"{planned.mirror}: {work}; "
        f"{show_size(planned.bytes_to_move)} to move, {show_size(planned.bytes_to_mount)} to mount, "
        f"{counted(sum(planned.requests.values()), 'request')}"
    )


def _rows(planned: MirrorPlan) -> list[list[str]]:
    return [
        [
            planned.mirror,
            item.title,
            item.destination,
            " ".join(item.tags),
            show_size(item.bytes_to_move),
            show_size(item.bytes_to_mount),
            item.error,
        ]
        for item in planned.items
    ]
