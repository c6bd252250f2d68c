"""`transship mirror plan` and `mirror check`: they compare, and write nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from msgspec import to_builtins

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import output_file, registry_flags, store_flags
from flows.cli.mirror.file import Mirrors, audit_flag, mirror_flags
from flows.cli.output import ExitCode, Output
from oci.errors import Incomplete, StoreError, TransshipError
from oci.mirror.compare import TooFewTags, compare
from oci.mirror.comparison import Comparison, DestinationComparison, TagState
from oci.mirror.config import Mirror
from oci.mirror.execute import MirrorPlan, PlannedItem, plan_mirror
from oci.mirror.results import EXTRA, MirrorReport, drift_of
from oci.mirror.run import SIDE_BY_SIDE
from oci.mirror.selection import TagVerdict, expanded, explain
from oci.relocation.session import Session
from oci.units import counted, show_size

_IMAGES = ("Mirror", "Image", "Destination", "Tags", "To move", "To mount", "Problem")
_REQUESTS = ("Mirror", "Registry", "Requests")
_WHY = ("Mirror", "Tag", "Taken", "Rule", "Reason")


@verb("plan", "", "web -f mirrors.yaml", "-f mirrors.yaml --json")
@mirror_flags
@audit_flag
@boolean("--why", help="Show for each tag of the source which rule takes it, or what keeps it out.")
@output_file("--output", "Write the plan to a JSON file.")
@registry_flags(sides=True)
@store_flags
def plan(invocation: Invocation, /, **flags: Any) -> None:
    """Say which images a run would copy, with bytes to move and to mount and the requests it would take."""
    invocation.output.check_columns(_IMAGES, _REQUESTS, *([_WHY] if flags["why"] else []))
    mirrors = Mirrors.asked_for(invocation, flags, audit=flags["audit"])
    plans: list[MirrorPlan] = []
    why: dict[str, list[TagVerdict]] = {}
    failures: list[TransshipError] = []
    for session, comparison in _compared(mirrors, failures):
        if comparison.uncompared:
            continue
        plans.append(plan_mirror(session, comparison))
        failures.extend(StoreError(item.error, subject=", ".join(item.names)) for item in plans[-1].items if item.error)
        _say_plan(invocation, plans[-1])
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
    images = [
        [planned.mirror, item.title, item.destination, " ".join(item.tags), *_sizes(item), item.error]
        for planned in plans
        for item in planned.items
    ]
    invocation.output.table("Images", _IMAGES, images)
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


def _verdicts(mirrors: Mirrors, name: str, source: Comparison | TooFewTags, named: Collection[str]) -> list[TagVerdict]:
    """Of all tags of the source, or of those that are named where it wasn't listed."""
    mirror = mirrors.config.mirror(name.partition("/")[0])
    if mirror.source.bundle or mirror.source.lock:
        return []
    return explain(
        sorted(source.listed if source.listed is not None else named), mirror.tags, mirror.never, source.selection
    )


def _say_plan(invocation: Invocation, planned: MirrorPlan) -> None:
    warn_of_absent(invocation.output, planned)
    for tag, reason in planned.held.items():
        invocation.output.line(f"{planned.mirror} | {tag} waits: {reason}")
    waiting = f", {counted(planned.waiting, 'image')} left to the next run" if planned.waiting else ""
    work = f"{counted(len(planned.items), 'image')} to copy, {counted(planned.in_place, 'tag')} in place{waiting}"
    moved, mounted = _sizes(planned)
    requests = counted(sum(planned.requests.values()), "request")
    invocation.output.summary(f"{planned.mirror}: {work}; {moved} to move, {mounted} to mount, {requests}")


def _sizes(planned: MirrorPlan | PlannedItem) -> tuple[str, str]:
    return show_size(planned.bytes_to_move), show_size(planned.bytes_to_mount)


_DRIFT = ("Mirror", "Destination", "Tag", "State", "Reason")
_UNTAKEN = "the mirror doesn't take it"


@verb("check", "", "web charts -f mirrors.yaml", "-f mirrors.yaml --json")
@mirror_flags
@output_file("--report", "Write what was found to a JSON file.")
@registry_flags(sides=True)
@store_flags
def check(invocation: Invocation, /, **flags: Any) -> int:
    """Tell which tags are missing, stale, extra, unsigned, or moved though immutable. Nothing is written.

    Manifests are asked for by HEAD, those of every image that a bundle or an index lists among them. Lost blobs and
    wrong bytes can't be seen so: transship verify --deep reads all of them.

    Exit codes: 0 all as it should be, 4 there is drift, 3 or 1 something couldn't be compared.
    """
    invocation.output.check_columns(_DRIFT)
    mirrors = Mirrors.asked_for(invocation, flags, audit=True, thorough=True)
    comparisons: list[Comparison] = []
    failures: list[TransshipError] = []
    for _, comparison in _compared(mirrors, failures):
        comparisons.append(comparison)
        _say_check(invocation, comparison)
    now = datetime.now(UTC)
    described = [comparison.to_dict() | {"lag_seconds": comparison.lag(now)} for comparison in comparisons]
    invocation.output.report(flags["report"], {"mirrors": described})
    rows = [
        [comparison.mirror, tag.destination, tag.tag, tag.state, _UNTAKEN if tag.state == EXTRA else tag.reason]
        for comparison in comparisons
        for tag in drift_of(comparison)
    ]
    invocation.output.table("Drift", _DRIFT, rows)
    if failures:
        raise Incomplete(
            f"{counted(len(failures), 'comparison')} failed",
            failures,
            some_done=any(
                tag.state is not TagState.FAILED for comparison in comparisons for _, tag in comparison.tags()
            ),
            hint="what could be compared is shown; check again when the cause is gone",
        )
    return ExitCode.DRIFT if any(comparison.drifted for comparison in comparisons) else ExitCode.DONE


def _say_check(invocation: Invocation, comparison: Comparison) -> None:
    _warn_of_nothing(invocation.output, comparison)
    if comparison.uncompared:
        invocation.output.summary(f"{comparison.mirror}: couldn't be compared")
        return
    counts = {state: comparison.count(state) for state in TagState}
    parts = [f"{count} {state.value}" for state, count in counts.items() if count or state is TagState.IN_PLACE]
    if comparison.extra:
        parts.append(f"{comparison.extra} extra")
    if comparison.too_young:
        parts.append(f"{len(comparison.too_young)} too young")
    lag = comparison.lag(datetime.now(UTC))
    behind = f"; behind by {lag / 3600:.1f} hours" if lag else ""
    invocation.output.summary(f"{comparison.mirror}: {', '.join(parts)}{behind}")


def _compared(mirrors: Mirrors, failures: list[TransshipError]) -> Iterator[tuple[Session, Comparison]]:
    """Yields each mirror, compared, with the session in which all are compared, side by side. What can't be compared is
    added to `failures`; it is the error of each destination of a mirror of which nothing can be."""
    if not mirrors.chosen:
        return

    def compare_one(mirror: Mirror) -> Comparison:
        try:
            return compare(session, mirror, mirrors.shared)
        except TransshipError as error:
            places = [DestinationComparison(destination=each.name, error=error) for each in mirror.destinations]
            return Comparison(mirror=mirror.name, source=str(mirror.source), destinations=tuple(places))

    with mirrors.session() as session, ThreadPoolExecutor(SIDE_BY_SIDE, "mirror") as threads:
        for comparison in threads.map(compare_one, expanded(session, mirrors.chosen)):
            problems = [destination.error for destination in comparison.destinations if destination.error is not None]
            problems += [
                tag.error or StoreError(tag.reason, subject=f"{comparison.source}:{tag.tag}")
                for _, tag in comparison.tags()
                if tag.state is TagState.FAILED
            ]
            failures.extend(dict.fromkeys(problems))  # a refused login is the cause for many tags
            yield session, comparison


def _warn_of_nothing(output: Output, result: Comparison | MirrorPlan | MirrorReport) -> None:
    if result.nothing_taken:
        output.warn(f"{result.mirror}: nothing of {result.source} is mirrored: {result.nothing_taken}")


def warn_of_absent(output: Output, result: MirrorPlan | MirrorReport) -> None:
    """Warns of tags that the rules name and that no destination gets, each with its reason."""
    _warn_of_nothing(output, result)
    for tag in result.mutated:
        output.warn(f"{result.mirror}: immutable tag {tag} moved at {result.source}; it isn't overwritten")
    for tag, reason in result.refusals.items():
        output.warn(f"{result.mirror}: the policy refuses {tag} at {result.source}: {reason}")
