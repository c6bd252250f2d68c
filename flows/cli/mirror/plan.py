"""`transship mirror plan`"""

from __future__ import annotations

from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags, store_flags
from flows.cli.click_ext import Invocation, OutputFile, Verb, boolean, everywhere
from flows.cli.mirror.shared import Mirrors, mirror_flags, warn_of_nothing
from oci.archive.s3_options import S3Options
from oci.errors import Incomplete, StoreError, TransshipError
from oci.mirror.execute import MirrorPlan, plan_mirror
from oci.units import counted, show_size

_IMAGES = ("Mirror", "Image", "Destination", "Tags", "To move", "To mount", "Problem")
_REQUESTS = ("Mirror", "Registry", "Requests")


@click.command(name="plan", cls=Verb, examples=("", "web -f mirrors.yaml", "-f mirrors.yaml --json"))
@mirror_flags
@boolean("--audit", help="Ask for immutable tags as well, and tell when one has moved at its source.")
@click.option("--output", type=OutputFile(), default="", help="Write the plan to a JSON file.")
@registry_flags(sides=True)
@store_flags
@everywhere
@click.pass_obj
def plan(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> None:
    """Say which images a run would copy, with bytes to move and to mount and the requests it would take."""
    invocation.output.check_columns(_IMAGES, _REQUESTS)
    mirrors = Mirrors.asked_for(invocation, registry, store, flags)
    shared = mirrors.shared(audit=flags["audit"])
    plans: list[MirrorPlan] = []
    failures: list[TransshipError] = []
    for session, comparison in mirrors.compared(shared, failures):
        plans.append(plan_mirror(session, comparison))
        failures.extend(StoreError(one.error, subject=", ".join(one.names)) for one in plans[-1].items if one.error)
        _say(invocation, plans[-1])
    mirrors.tell(flags["output"], {"mirrors": [one.to_dict() for one in plans]})
    invocation.output.table("Images", _IMAGES, [row for one in plans for row in _rows(one)])
    requests = [[one.mirror, registry_name, count] for one in plans for registry_name, count in one.requests.items()]
    if requests:
        invocation.output.table("Requests", _REQUESTS, requests)
    if failures:
        raise Incomplete(
            f"{len(failures)} sources, destinations or images couldn't be looked at",
            failures,
            some_done=any(one.in_place or not all(item.error for item in one.items) for one in plans),
            hint="what could be planned is shown; plan again when the cause is gone",
        )
    invocation.output.finish()


def _say(invocation: Invocation, found: MirrorPlan) -> None:
    warn_of_nothing(invocation, found)
    for tag in found.mutated:
        invocation.output.warn(f"{found.mirror}: immutable tag {tag} moved at {found.source}; it isn't overwritten")
    for tag in found.unsigned:
        invocation.output.warn(f"{found.mirror}: {tag} has no signature at {found.source}; it isn't taken")
    for tag, reason in found.held.items():
        invocation.output.line(f"{found.mirror} | {tag} waits: {reason}")
    waiting = f", {counted(found.waiting, 'image')} left to the next run" if found.waiting else ""
    work = f"{counted(len(found.items), 'image')} to copy, {counted(found.in_place, 'tag')} in place{waiting}"
    invocation.output.summary(
        f"{found.mirror}: {work}; "
        f"{show_size(found.bytes_to_move)} to move, {show_size(found.bytes_to_mount)} to mount, "
        f"{counted(sum(found.requests.values()), 'request')}"
    )


def _rows(found: MirrorPlan) -> list[list[str]]:
    return [
        [
            found.mirror,
            item.title,
            item.destination,
            " ".join(item.tags),
            show_size(item.bytes_to_move),
            show_size(item.bytes_to_mount),
            item.error,
        ]
        for item in found.items
    ]
