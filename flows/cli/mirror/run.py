"""`transship mirror run`, and what it shows on its way: a line for each mirror that has something to do, and a sum."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import click

from flows.cli.click_ext import Invocation, boolean, verb
from flows.cli.flags import Age, metrics_flag, output_file, registry_flags, store_flags
from flows.cli.mirror.comparison import warn_of_absent
from flows.cli.mirror.file import Mirrors, audit_flag, mirror_flags
from flows.cli.output import Output
from flows.cli.progress import Rates, clock, progress_flag, shown
from oci.errors import Cancelled, Incomplete, NotTrusted, StoreError, TransshipError
from oci.meter import Receipt, export_metrics
from oci.mirror.comparison import Comparison, WorkItem
from oci.mirror.config import Mirror
from oci.mirror.execute import ItemOutcome
from oci.mirror.results import INTERRUPTED, MirrorReport, mirror_metrics
from oci.mirror.run import run_mirrors
from oci.relocation.transfer import DONE
from oci.units import counted, show_size

_NAME = 30


@dataclass(slots=True)
class MirrorsProgress:
    """What is known of a run's mirrors. The run's threads tell it, one at a time; the thread that draws asks."""

    receipt: Callable[[], Receipt]
    named: int
    """Mirrors of the file; those of a namespace come as they are found."""
    _tags: dict[str, int] = field(default_factory=dict)
    """Those that each mirror has to move; of one that has ended, those that it has moved."""
    _moved: Counter[str] = field(default_factory=Counter)
    _sent: Counter[str] = field(default_factory=Counter)
    _ended: dict[str, bool] = field(default_factory=dict)
    """Mirrors that have ended: whether they failed."""
    _rates: Rates = field(default_factory=Rates)
    _started: float = field(default_factory=time.monotonic)

    def compared(self, mirror: str, tags: int) -> None:
        """The mirror has so many tags to move."""
        self._tags[mirror] = tags

    def moved(self, mirror: str, tags: int, sent: int) -> None:
        self._moved[mirror] += tags
        self._sent[mirror] += sent

    def finished(self, mirror: str, *, failed: bool) -> None:
        self._ended[mirror] = failed
        self._tags[mirror] = self._moved[mirror]

    def lines(self, width: int) -> list[str]:
        """The whole first, then each mirror under way."""
        busy = {name: tags for name, tags in dict(self._tags).items() if tags and name not in self._ended}
        table = [self.line()]
        name_width = min(_NAME, max((len(name) for name in busy), default=0), max(8, width - 40))
        for name, tags in busy.items():
            rate = self._rates.of(name, self._sent[name])
            row = f"  {name[:name_width]:{name_width}}  {self._moved[name]} of {counted(tags, 'tag')}"
            table.append(f"{row}  {show_size(self._sent[name])}" + (f"  {show_size(rate)}/s" if rate else ""))
        return table

    def line(self) -> str:
        """`3 of 40 mirrors, 12 of 60 tags, 1.2 GiB sent, 80.0 MiB/s, 2m10s left`."""
        tags, moved = sum(dict(self._tags).values()), sum(dict(self._moved).values())
        failed = sum(dict(self._ended).values())
        sent = self.receipt().bytes_written
        rate = self._rates.of("", sent)
        mirrors = counted(max(self.named, len(self._tags)), "mirror")
        parts = [f"{len(self._ended)} of {mirrors}", f"{moved} of {counted(tags, 'tag')}"]
        parts += [f"{failed} failed"] if failed else []
        parts.append(f"{show_size(sent)} sent")
        parts += [f"{show_size(rate)}/s"] if rate else []
        if 0 < moved < tags:
            parts.append(f"{clock((time.monotonic() - self._started) / moved * (tags - moved))} left")
        return ", ".join(parts)


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
            _say_run(output, report)

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


def _say_run(output: Output, report: MirrorReport) -> None:
    warn_of_absent(output, report)
    for registry, texts in sorted(report.receipt.fallbacks.items()):
        for text in texts:
            output.line(f"{report.mirror} | {registry}: {text}")
    output.summary(report.line(mounted=True))


_REFUSED = "what is immutable or refused stays as it is: correct the source, the mirror or the policy, and run it again"


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
            failures.append(failed.as_error(f"mirror {report.mirror}"))
        failures.extend(StoreError("immutable, and moved at the source", subject=tag) for tag in report.mutated)
        failures.extend(NotTrusted(reason, subject=tag) for tag, reason in report.refusals.items())
    names = [report.mirror for report in reports if not report.succeeded]
    more = f", {skipped} not tried for that reason" if skipped else ""
    failures_remain = any(report.failed for report in reports)
    raise Incomplete(
        f"{len(names)} of {len(reports)} mirrors aren't complete: {', '.join(names)}{more}",
        failures,
        some_done=not all(report.nothing_done for report in reports),
        hint="run what failed again with --report FILE, then --only FILE" if failures_remain else _REFUSED,
    )
