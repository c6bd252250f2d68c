"""Bytes on their way: a live display on a terminal, plain lines in a pipe when they are asked for.

Nothing calls back from the core: a thread looks at the meter and at what the session has in flight.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import click

from flows.cli.click_ext import Invocation
from flows.cli.output import visible
from oci.digest import Digest
from oci.meter import METRICS_FILE, PUSHGATEWAY, Meter, Receipt, RunMetrics, export_metrics
from oci.relocation.session import Session
from oci.relocation.transfer import DONE, FAILED, PRESENT
from oci.units import show_size

if TYPE_CHECKING:
    from rich.progress import ProgressColumn

    from oci.export.parts import Part
    from oci.export.plan import ArchivePlan
    from oci.relocation.plan import Plan, PlannedManifest
    from oci.relocation.session import Session
    from oci.relocation.transfer import ImageOutcome

_TERMINAL_SECONDS = 0.2
_PLAIN_SECONDS = 5.0
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class Row:
    """One bar; sizes in bytes, `total` None while it isn't known."""

    name: str
    moved: int = 0
    total: int | None = None


class Progress(Protocol):
    """What is drawn; asked again and again from a thread of its own."""

    def overall(self) -> Row: ...

    def parts(self) -> list[Row]:
        """What is on its way right now."""


@dataclass(slots=True)
class RelocationProgress:
    """A relocation: its images, and of those on their way each one's bytes."""

    session: Session
    plan: Plan | None = None
    outcomes: dict[Digest, ImageOutcome] = field(default_factory=dict)
    _blobs: dict[Digest, tuple[Digest, ...]] = field(default_factory=dict)
    _images: dict[Digest, list[Digest]] = field(default_factory=dict)

    def planned(self, plan: Plan) -> None:
        for image in plan.to_transfer:
            blobs = self._blobs[image.digest] = tuple(dict.fromkeys(_blobs_below(plan, image)))
            for blob in blobs:
                self._images.setdefault(blob, []).append(image.digest)
        self.plan = plan

    def finished(self, outcome: ImageOutcome) -> None:
        self.outcomes[outcome.digest] = outcome

    def overall(self) -> Row:
        if self.plan is None:
            return Row("planning")
        receipt = self.session.meter.receipt()
        moved = receipt.bytes_moved
        total = self.plan.bytes_to_move
        return Row(f"{len(self.outcomes)} of {len(list(self.plan.images))} images", min(moved, total), total)

    def parts(self) -> list[Row]:
        """A blob that several images share shows with the first of them that isn't done."""
        plan, moving = self.plan, dict(self.session.moving)
        if plan is None:
            return []
        owners = (
            next((image for image in self._images.get(blob, ()) if image not in self.outcomes), None) for blob in moving
        )
        return [self._part(plan, image, moving) for image in dict.fromkeys(owners) if image is not None]

    def _part(self, plan: Plan, image: Digest, moving: dict[Digest, int]) -> Row:
        sizes = {blob: plan.blob_by_digest[blob].size for blob in self._blobs[image]}
        copied = sum(size if blob in self.session.moved else moving.get(blob, 0) for blob, size in sizes.items())
        planned = plan.by_digest[image]
        name = planned.subject.partition("@")[0].rpartition("/")[2]
        return Row(f"{name[:_LONGEST_NAME]}@{image[:14]}", copied, sum(sizes.values()))


def _blobs_below(plan: Plan, image: PlannedManifest) -> Iterator[Digest]:
    """What a bundle lists is beside it, not below."""
    yield from image.blobs
    if image.is_bundle:
        return
    for digest in image.children:
        child = plan.by_digest.get(digest)
        if child is not None and not child.present:
            yield from _blobs_below(plan, child)


@dataclass(slots=True)
class ArchiveProgress:
    """An archive being written: its parts, and the blobs on their way."""

    session: Session
    plan: ArchivePlan | None = None
    finished: int = 0
    bytes_done: int = 0
    _written: int = 0
    _read: int = 0

    def planned(self, plan: ArchivePlan) -> None:
        receipt = self.session.meter.receipt()
        self._read, self._written = receipt.bytes_read, receipt.bytes_written
        self.plan = plan

    def part(self, part: Part) -> None:
        self.finished += 1
        self.bytes_done += part.size

    def overall(self) -> Row:
        if self.plan is None:
            return Row("planning")
        receipt = self.session.meter.receipt()
        on_way = max(0, receipt.bytes_read - self._read - (receipt.bytes_written - self._written))
        parts = sum(len(volume.parts) for volume in self.plan.volumes)
        name = f"{min(self.finished, parts)} of {parts} parts"
        return Row(name, min(self.bytes_done + on_way, self.plan.size), self.plan.size)

    def parts(self) -> list[Row]:
        plan, moving = self.plan, dict(self.session.moving)
        if plan is None:
            return []
        sizes = plan.blob_by_digest
        return [Row(blob[:19], min(read, sizes[blob].size), sizes[blob].size) for blob, read in moving.items()]


@dataclass(slots=True)
class LayerProgress:
    """The layers of a push or a pull: `count` says which bytes of a receipt they are."""

    meter: Meter
    name: str
    count: Callable[[Receipt], int]
    total: int | None = None

    def expect(self, size: int) -> None:
        self.total = (self.total or 0) + size

    def overall(self) -> Row:
        if self.total is None:
            return Row(self.name)
        return Row(self.name, min(self.count(self.meter.receipt()), self.total), self.total)

    def parts(self) -> list[Row]:
        return []


def progress_flag(command: Any) -> Any:
    return click.option(
        "--progress",
        "progress_kind",
        type=click.Choice(["auto", "plain", "none"]),
        default="auto",
        help="auto: on a terminal; plain: lines on standard error, in a pipe too.",
    )(command)


@contextmanager
def shown(progress: Progress, invocation: Invocation, kind: str) -> Iterator[None]:
    """Draws while the block runs; `asked` is `auto`, `plain` or `none`."""
    draw = _drawing(invocation, kind)
    if draw is None:
        yield
        return
    stop = threading.Event()
    thread = threading.Thread(target=draw, args=(progress, stop), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _drawing(invocation: Invocation, kind: str) -> Callable[[Progress, threading.Event], None] | None:
    output = invocation.output
    if kind == "plain":
        return _draw_plain
    if kind == "none" or output.json or output.quiet or not output.tty or not sys.stderr.isatty():
        return None
    colored = output.color and not os.environ.get("NO_COLOR")
    return lambda progress, stop: _draw_terminal(progress, stop, colored=colored)


def _draw_plain(progress: Progress, stop: threading.Event) -> None:
    before = 0
    while not stop.wait(_PLAIN_SECONDS):
        row = progress.overall()
        rate = (row.moved - before) / _PLAIN_SECONDS
        before = row.moved
        total = row.total or 0
        remaining_time = f", {_clock((total - row.moved) / rate)} left" if rate > 0 else ""
        sizes = (
            f", {show_size(row.moved)} of {show_size(total)}, {show_size(rate)}/s{remaining_time}"
            if row.total is not None
            else ""
        )
        print(visible(f"{row.name}{sizes}"), file=sys.stderr, flush=True)


def _draw_terminal(progress: Progress, stop: threading.Event, *, colored: bool) -> None:
    from rich import progress as bars  # noqa: PLC0415 - only a terminal needs it
    from rich.console import Console  # noqa: PLC0415

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.DownloadColumn(binary_units=True),
        _speed_column(),
        bars.TimeRemainingColumn(),
    )
    # The product's lines are folded by the terminal, not here: people copy them from it.
    console = Console(stderr=True, no_color=not colored, soft_wrap=True)
    # Lines of the product go above the display only where both share a terminal.
    both = sys.stdout.isatty()
    with bars.Progress(*columns, console=console, transient=True, redirect_stdout=both, refresh_per_second=5) as live:
        whole = live.add_task("", total=None)
        drawn: dict[str, bars.TaskID] = {}
        while not stop.wait(_TERMINAL_SECONDS):
            overall = progress.overall()
            live.update(whole, description=visible(overall.name), total=overall.total, completed=overall.moved)
            rows = {row.name: row for row in progress.parts()[: max(0, console.height - 4)]}
            for name in drawn.keys() - rows.keys():
                live.remove_task(drawn.pop(name))
            for name, row in rows.items():
                if name not in drawn:
                    drawn[name] = live.add_task(f"  {visible(name)}", total=row.total)
                live.update(drawn[name], completed=row.moved)


def _speed_column() -> ProgressColumn:
    """In the units of the sizes beside it, which rich's own isn't."""
    from rich.progress import ProgressColumn, Task  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    class Speed(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{show_size(task.speed)}/s" if task.speed else "", style="progress.data.speed")

    return Speed()


def _clock(seconds: float) -> str:
    minutes, seconds_left = divmod(round(seconds), 60)
    return f"{minutes}m{seconds_left:02}s" if minutes else f"{seconds_left}s"


F = TypeVar("F", bound=Callable[..., Any])

metrics_flag: Callable[[F], F] = click.option(
    "--metrics-file",
    default="",
    envvar=METRICS_FILE,
    help=f"Leave the run's numbers for Prometheus in this file or folder ({METRICS_FILE}); {PUSHGATEWAY} pushes them.",
)


@contextmanager
def metrics_exported(
    session: Session, images: Callable[[], Mapping[str, int]], invocation: Invocation, *, destination: str, path: str
) -> Iterator[None]:
    """Exports the metrics of the block when it ends, with or without an error; `images` counts images by outcome."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        run = RunMetrics(
            names={"destination": destination},
            succeeded=succeeded,
            ended=time.time(),
            receipt=session.meter.receipt(),
            images=images(),
        )
        export_metrics(run, warn=invocation.output.warn, path=path)


def sums(progress: RelocationProgress) -> Mapping[str, int]:
    """Images of a relocation so far."""
    counts = Counter(outcome.status for outcome in progress.outcomes.values())
    unread = len(progress.plan.failures) if progress.plan else 0
    return {"copied": counts[DONE], "present": counts[PRESENT], "failed": counts[FAILED] + unread}
