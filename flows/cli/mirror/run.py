"""`transship mirror run`"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags, store_flags
from flows.cli.click_ext import Invocation, OutputFile, Verb, boolean, everywhere
from flows.cli.display.mirrors import MirrorsProgress
from flows.cli.flags import Age
from flows.cli.mirror.shared import Mirrors, audit_flag, mirror_flags, warn_of_absent
from flows.cli.progress import metrics_flag, progress_flag, shown
from oci.archive.s3_options import S3Options
from oci.errors import Cancelled, Incomplete, NotTrusted, StoreError, TransshipError
from oci.meter import export_metrics
from oci.mirror.comparison import Comparison
from oci.mirror.config import Mirror
from oci.mirror.execute import ItemOutcome
from oci.mirror.results import INTERRUPTED, MirrorReport, mirror_metrics
from oci.mirror.run import run_mirrors
from oci.mirror.work import WorkItem
from oci.relocation.transfer import DONE
from oci.units import show_cost, show_size

_RUNS = ("Mirror", "Copied", "In place", "Failed", "Sent", "Mounted", "Requests", "Seconds")


@click.command(
    name="run", cls=Verb, examples=("", "web charts -f mirrors.yaml --report report.json", "--only report.json --audit")
)
@mirror_flags
@audit_flag
@click.option(
    "--report",
    type=OutputFile(),
    default="",
    help="Write what became of each mirror to a JSON file, which --only understands.",
)
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
@everywhere
@click.pass_obj
def run(invocation: Invocation, /, registry: RegistryFlags, store: S3Options, **flags: Any) -> None:
    """Copy what is missing or changed, for all mirrors or for those that are named.

    A failure stops nothing else. Exit codes: 0 all is in place, 3 some of it failed, 1 nothing worked.
    """
    output = invocation.output
    output.check_columns(_RUNS)
    invocation.resume_hint = "what is copied stays, and no tag shows anything incomplete; run the same again to go on"
    mirrors = Mirrors.asked_for(invocation, registry, store, flags)
    shared = mirrors.shared(audit=flags["audit"])
    if flags["drain"]:
        seconds = flags["drain"].total_seconds()
        invocation.drain = partial(shared.breaker.stop, TransshipError(INTERRUPTED), seconds)
    reports: list[MirrorReport] = []

    def report_mirror(report: MirrorReport) -> None:
        reports.append(report)
        progress.finished(report.mirror, failed=not report.succeeded)
        if not flags["only_changes"] or _has_news(report):
            _say(invocation, report)

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
                        session, mirrors.chosen, shared, on_compared=compared, on_done=moved, on_report=report_mirror
                    )
    finally:
        order = [mirror.name for mirror in mirrors.chosen]
        reports.sort(key=lambda report: (order.index(report.mirror.partition("/")[0]), report.mirror))
        output.report(flags["report"], {"mirrors": [report.to_dict() for report in reports]})
        export_metrics(*map(mirror_metrics, reports), warn=output.warn, path=flags["metrics_file"])
    if shared.breaker.stopped:
        raise Cancelled
    reports_with_news = [report for report in reports if not flags["only_changes"] or _has_news(report)]
    output.table("Runs", _RUNS, [_row(report) for report in reports_with_news])
    _raise_failures(reports)


def _has_news(report: MirrorReport) -> bool:
    """Something was copied, failed, or is not as it should be."""
    return bool(report.copied or not report.succeeded or report.waiting or report.nothing_taken)


def _say(invocation: Invocation, report: MirrorReport) -> None:
    warn_of_absent(invocation.output, report)
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


def _row(report: MirrorReport) -> list[object]:
    receipt = report.receipt
    return [
        report.mirror,
        report.copied,
        report.in_place,
        len(report.failed),
        show_size(receipt.bytes_written),
        show_size(receipt.bytes_mounted),
        receipt.total_requests,
        f"{receipt.seconds:.1f}",
    ]


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
