"""`transship mirror plan`, `mirror check` and `mirror run`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any

import click
from msgspec import to_builtins

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import Age, metrics_flag, output_file, registry_flags, store_flags
from flows.cli.mirror.progress import MirrorsProgress
from flows.cli.mirror.shared import Mirrors, audit_flag, mirror_flags
from flows.cli.output import ExitCode, Output
from flows.cli.progress import progress_flag, shown
from oci.errors import Cancelled, Incomplete, NotTrusted, StoreError, TransshipError
from oci.meter import export_metrics
from oci.mirror.compare import compare
from oci.mirror.comparison import Comparison, DestinationComparison, TagState, TooFewTags
from oci.mirror.config import Mirror
from oci.mirror.execute import ItemOutcome, MirrorPlan, PlannedItem, plan_mirror
from oci.mirror.results import INTERRUPTED, MirrorReport, mirror_metrics
from oci.mirror.run import SIDE_BY_SIDE, run_mirrors
from oci.mirror.selection import Verdict, expanded, explain
from oci.mirror.work import WorkItem
from oci.relocation.session import Session
from oci.relocation.transfer import DONE
from oci.units import counted, show_cost, show_size

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
    why: dict[str, list[Verdict]] = {}
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


def _verdicts(mirrors: Mirrors, name: str, source: Comparison | TooFewTags, named: Collection[str]) -> list[Verdict]:
    """Of all tags of the source, or of those that are named where it wasn't listed."""
    mirror = mirrors.config.mirror(name.partition("/")[0])
    if mirror.source.bundle or mirror.source.lock:
        return []
    return explain(
        sorted(source.listed if source.listed is not None else named), mirror.tags, mirror.never, source.selection
    )


def _say_plan(invocation: Invocation, planned: MirrorPlan) -> None:
    _warn_of_absent(invocation.output, planned)
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
    rows: list[list[str]] = []
    for comparison in comparisons:
        rows += [
            [comparison.mirror, destination, tag.tag, tag.state.value, tag.reason]
            for destination, tag in comparison.tags()
            if tag.state is not TagState.IN_PLACE
        ]
        rows += [
            [comparison.mirror, destination.destination, tag, "extra", "the mirror doesn't take it"]
            for destination in comparison.destinations
            for tag in destination.extra
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


_RUNS = ("Mirror", "Copied", "In place", "Failed", "Sent", "Mounted", "Requests", "Seconds")


@verb("run", "", "web charts -f mirrors.yaml --report report.json", "--only report.json --audit")
@mirror_flags
@audit_flag
@output_file("--report", "Write what became of each mirror to a JSON file, which --only understands.")
@boolean("--only-changes", help="Say nothing of mirrors where all is in place.")
@click.option(
    "--drain",
    type=Age(),
    default="25s",
    show_default=True,
    help="After SIGTERM, give images on their way this much time, then write the report. 0 breaks them off.",
)
@metrics_flag
@progress_flag
@registry_flags(sides=True)
@store_flags
def run(invocation: Invocation, /, **flags: Any) -> None:
    """Copy what is missing or changed, for all mirrors or for those that are named.

    A failure stops nothing else. Exit codes: 0 all is in place, 3 some of it failed, 1 nothing worked.
    """
    output = invocation.output
    output.check_columns(_RUNS)
    invocation.resume_hint = "what is copied stays, and no tag shows anything incomplete; run the same again to go on"
    mirrors = Mirrors.asked_for(invocation, flags, audit=flags["audit"])
    breaker = mirrors.shared.breaker
    if flags["drain"]:
        seconds = flags["drain"].total_seconds()
        invocation.drain = partial(breaker.stop, TransshipError(INTERRUPTED), seconds)
    reports: list[MirrorReport] = []

    def has_news(report: MirrorReport) -> bool:
        return bool(
            not flags["only_changes"]
            or (report.copied or not report.succeeded or report.waiting or report.nothing_taken)
        )

    def report_mirror(report: MirrorReport) -> None:
        reports.append(report)
        progress.finished(report.mirror, failed=not report.succeeded)
        if has_news(report):
            _say_run(invocation, report)

    def compared(mirror: Mirror, comparison: Comparison) -> None:
        progress.compared(mirror.name, sum(len(target.tags) for item in comparison.work for target in item.targets))

    def moved(mirror: Mirror, item: WorkItem, outcomes: tuple[ItemOutcome, ...]) -> None:
        tags = sum(len(target.tags) for target in item.targets)
        progress.moved(mirror.name, tags, sum(outcome.bytes_written for outcome in outcomes))
        for outcome in outcomes:
            amounts = f"{show_size(outcome.bytes_written)} sent, {outcome.seconds:.1f} s"
            result = amounts if outcome.status == DONE else outcome.status
            output.line(f"{mirror.name} | {item.title} -> {outcome.destination}: {result}")

    try:
        if mirrors.chosen:
            with mirrors.session() as session:
                progress = MirrorsProgress(session.meter.receipt, len(mirrors.chosen))
                with shown(progress, invocation, flags["progress_kind"]):
                    run_mirrors(
                        session,
                        mirrors.chosen,
                        mirrors.shared,
                        on_compared=compared,
                        on_done=moved,
                        on_report=report_mirror,
                    )
    finally:
        order = [mirror.name for mirror in mirrors.chosen]
        reports.sort(key=lambda report: (order.index(report.mirror.partition("/")[0]), report.mirror))
        output.report(flags["report"], {"mirrors": [report.to_dict() for report in reports]})
        export_metrics(*map(mirror_metrics, reports), warn=output.warn, path=flags["metrics_file"])
    if breaker.stopped:
        raise Cancelled
    rows = [
        [
            *(report.mirror, report.copied, report.in_place, len(report.failed)),
            *(show_size(report.receipt.bytes_written), show_size(report.receipt.bytes_mounted)),
            *(report.receipt.total_requests, f"{report.receipt.seconds:.1f}"),
        ]
        for report in filter(has_news, reports)
    ]
    output.table("Runs", _RUNS, rows)
    _raise_failures(reports)


def _say_run(invocation: Invocation, report: MirrorReport) -> None:
    _warn_of_absent(invocation.output, report)
    waiting = f", {report.held} too young" if report.held else ""
    waiting += f", {report.waiting} left to the next run" if report.waiting else ""
    receipt = report.receipt
    for registry, texts in sorted(receipt.fallbacks.items()):
        for text in texts:
            invocation.output.line(f"{report.mirror} | {registry}: {text}")
    invocation.output.summary(
        f"{report.mirror}: {report.copied} copied, {report.in_place} in place, {len(report.failed)} failed{waiting}; "
        f"{show_size(receipt.bytes_written)} sent, {show_size(receipt.bytes_mounted)} mounted, "
        f"{show_cost(receipt.total_requests, receipt.seconds)}"
    )


def _raise_failures(reports: Sequence[MirrorReport]) -> None:
    """One error for all of it: each cause of a registry once, then what failed by itself."""
    if all(report.succeeded for report in reports):
        return
    causes = list(dict.fromkeys(cause for report in reports for cause in report.causes))
    failures: list[TransshipError] = [StoreError(cause) for cause in causes]
    skipped = 0
    for report in reports:
        for failed in report.failed:
            if failed.not_tried or failed.error in causes:
                skipped += 1
                continue
            subject = ", ".join(failed.names) or f"mirror {report.mirror}"
            failures.append(StoreError(failed.error, subject=subject, retryable=failed.retryable))
        failures.extend(StoreError("immutable, and moved at the source", subject=tag) for tag in report.mutated)
        failures.extend(NotTrusted(reason, subject=tag) for tag, reason in report.refusals.items())
    names = [report.mirror for report in reports if not report.succeeded]
    more = f", {skipped} not tried for that reason" if skipped else ""
    raise Incomplete(
        f"{len(names)} of {len(reports)} mirrors aren't complete: {', '.join(names)}{more}",
        failures,
        some_done=not all(report.nothing_done for report in reports),
        hint="run what failed again with --report FILE, then --only FILE",
    )


def _compared(mirrors: Mirrors, failures: list[TransshipError]) -> Iterator[tuple[Session, Comparison]]:
    """Yields each mirror, compared, with the session in which all are compared, side by side. What can't be compared is
    added to `failures`; it is the error of each destination of a mirror of which nothing can be."""
    if not mirrors.chosen:
        return

    def compare_one(mirror: Mirror) -> Comparison:
        try:
            return compare(session, mirror, mirrors.shared)
        except TransshipError as error:
            places = [DestinationComparison(destination=str(each), error=error) for each in mirror.destinations]
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


def _warn_of_absent(output: Output, result: MirrorPlan | MirrorReport) -> None:
    """Warns of tags that the rules name and that no destination gets, each with its reason."""
    _warn_of_nothing(output, result)
    for tag in result.mutated:
        output.warn(f"{result.mirror}: immutable tag {tag} moved at {result.source}; it isn't overwritten")
    for tag, reason in result.refusals.items():
        output.warn(f"{result.mirror}: the policy refuses {tag} at {result.source}: {reason}")
