"""`transship mirror run`"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from flows.cli.access import RegistryFlags, registry_flags, store_flags
from flows.cli.click_ext import Invocation, OutputFile, Verb, boolean, everywhere
from flows.cli.mirror.shared import Mirrors, mirror_flags, warn_of_nothing
from flows.cli.progress import metrics_flag
from oci.archive.s3_options import S3Options
from oci.errors import Incomplete, NotTrusted, StoreError, TransshipError
from oci.meter import export_metrics
from oci.mirror.config import Mirror
from oci.mirror.execute import ItemOutcome
from oci.mirror.results import MirrorReport, mirror_metrics
from oci.mirror.run import run_mirrors
from oci.mirror.work import WorkItem
from oci.relocation.transfer import DONE
from oci.units import counted, show_size

_RUNS = ("Mirror", "Copied", "In place", "Failed", "Sent", "Mounted", "Requests", "Seconds")


@click.command(
    name="run", cls=Verb, examples=("", "web charts -f mirrors.yaml --report report.json", "--only report.json --audit")
)
@mirror_flags
@boolean("--audit", help="Ask for immutable tags as well, and tell when one has moved at its source.")
@click.option(
    "--report",
    type=OutputFile(),
    default="",
    help="Write what became of each mirror to a JSON file, which --only understands.",
)
@metrics_flag
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
    reports: list[MirrorReport] = []

    def report_mirror(report: MirrorReport) -> None:
        reports.append(report)
        _say(invocation, report)

    try:
        if mirrors.chosen:
            with mirrors.session() as session:
                run_mirrors(
                    session, mirrors.chosen, shared, on_done=_line_per_outcome(invocation), on_report=report_mirror
                )
    finally:
        order = [mirror.name for mirror in mirrors.chosen]
        reports.sort(key=lambda report: (order.index(report.mirror.partition("/")[0]), report.mirror))
        body = {"mirrors": [report.to_dict() for report in reports]}
        mirrors.tell(flags["report"], body)
        export_metrics(*map(mirror_metrics, reports), warn=output.warn, path=flags["metrics_file"])
    output.table("Runs", _RUNS, [_row(report) for report in reports])
    _raise_failures(reports)
    output.finish()


def _line_per_outcome(invocation: Invocation) -> Any:
    def report(mirror: Mirror, item: WorkItem, outcomes: tuple[ItemOutcome, ...]) -> None:
        for outcome in outcomes:
            result = (
                f"{show_size(outcome.bytes_written)} sent, {outcome.seconds:.1f} s"
                if outcome.status == DONE
                else outcome.status
            )
            invocation.output.line(f"{mirror.name} | {item.title} -> {outcome.destination}: {result}")

    return report


def _say(invocation: Invocation, report: MirrorReport) -> None:
    warn_of_nothing(invocation, report)
    for tag in report.mutated:
        invocation.output.warn(f"{report.mirror}: immutable tag {tag} moved at {report.source}; it isn't overwritten")
    for tag, reason in report.refusals.items():
        invocation.output.warn(f"{report.mirror}: the policy refuses {tag} at {report.source}: {reason}")
    waiting = f", {report.held} too young" if report.held else ""
    waiting += f", {report.waiting} left to the next run" if report.waiting else ""
    receipt = report.receipt
    for registry, texts in sorted(receipt.fallbacks.items()):
        for text in texts:
            invocation.output.line(f"{report.mirror} | {registry}: {text}")
    invocation.output.summary(
        f"{report.mirror}: {report.copied} copied, {report.in_place} in place, {len(report.failed)} failed{waiting}; "
        f"{show_size(receipt.bytes_written)} sent, {show_size(receipt.bytes_mounted)} mounted, "
        f"{counted(receipt.total_requests, 'request')}, {receipt.seconds:.1f} s"
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
